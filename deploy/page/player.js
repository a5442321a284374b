// Plays a trial: which attempt is shown, and which step of it, as time goes by.

const PAUSE_S = 0.7; // at the end of an attempt

export class Player {
  /** `show` is called whenever another step, or another attempt, is to be seen. */
  constructor(show) {
    this.show = show;
    this.speed = 30; // steps per second
    this.unload();
  }

  load(trial, isPlaying) {
    Object.assign(this, { trial, number: 0, step: 0, isPlaying: false });
    if (isPlaying) this.play();
    else this.show();
  }

  unload() {
    Object.assign(this, { trial: null, number: 0, step: 0, isPlaying: false });
  }

  /** The explorer's attempt beside the one that is shown: its first, and then the one on the best way that it knows. */
  get explorer() {
    return this.trial.explorer[Math.min(this.number, 1)];
  }

  /** The last step at which something happens. */
  get end() {
    return Math.max(this.trial.attempts[this.number].cells.length, this.explorer.cells.length) - 1;
  }

  get isOver() {
    return this.number === this.trial.attempts.length - 1 && this.step >= this.end;
  }

  /** Goes to an attempt and one of its steps. */
  goTo(number, step) {
    this.number = Math.min(Math.max(number, 0), this.trial.attempts.length - 1);
    this.step = Math.min(Math.max(step, 0), this.end);
    this.show();
  }

  by(steps) {
    this.isPlaying = false;
    if (steps > 0 && this.step >= this.end && !this.isOver) this.goTo(this.number + 1, 0);
    else if (steps < 0 && this.step === 0 && this.number) this.goTo(this.number - 1, Infinity);
    else this.goTo(this.number, this.step + steps);
  }

  play() {
    if (this.isOver) this.goTo(0, 0);
    this.isPlaying = true;
    this.show();
    let former = performance.now();
    let due = 0; // steps, and parts of steps
    let rest = 0; // seconds until the next attempt
    const { trial } = this;
    const frame = (time) => {
      if (!this.isPlaying || this.trial !== trial) return;
      const seconds = Math.min(0.1, Math.max(0, time - former) / 1000);
      former = time;
      if (this.isOver) this.pause();
      else if (this.step >= this.end) {
        rest += seconds;
        if (rest > PAUSE_S) [rest, due] = [0, this.goTo(this.number + 1, 0) ?? 0];
      } else {
        due += seconds * this.speed;
        if (due >= 1) this.goTo(this.number, this.step + Math.floor(due));
        due %= 1;
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  pause() {
    this.isPlaying = false;
    this.show();
  }
}
