"""Keys of the links: how `clew keys` makes them, and what becomes of those that are not fit for use."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from deploy.command import keys
from protocol.config import ClewError
from protocol.wire.keys import ActorKeys, Allowlist, LearnerKeys
from tests import ROOT
from tests.parts import forked
from tests.parts.deadline import DEADLINE_S

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PUBLIC = b"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"  # of RFC 32's authors
REFUSALS = [  # of a key file, wherever it is
    b"",
    b"\0",
    b"public-key",
    b"public-key = ",
    b'public-key = "' + PUBLIC[:-1] + b'"',
    b'public-key = "' + PUBLIC + b'0"',
    b'public-key = "' + b"~" * 40 + b'"',  # not of z85
    b'public-key = "' + b"#" * 40 + b'"',  # five of them are more than 32 bits
    b'public-key = "' + PUBLIC + b'"\nsecret-key\n',
    b'public-key = "' + PUBLIC + b'"\n' + b"#" * 65_536,
]


def clew_keys(*arguments: object, folder: Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return forked.run(["keys", *map(str, arguments)], folder, ENVIRONMENT, DEADLINE_S, umask)


def assert_refused(result: subprocess.CompletedProcess[str], pattern: str) -> None:
    """One line that says what is wrong, exit code 2, nothing else."""
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(f"clew: .*{pattern}.*\n", result.stderr)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Keys of a learner and of `actor`."""
    keys.new(tmp_path / "keys")
    return tmp_path / "keys"


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of everything in `folder`."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode & 0o777,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in folder.rglob("*")
    }


# The command


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_each_party_gets_what_it_needs_and_nothing_else(umask: int, tmp_path: Path) -> None:
    result = clew_keys("new", "keys", folder=tmp_path, umask=umask)
    assert (result.returncode, result.stderr) == (0, "")
    assert 2 <= result.stdout.count("\n") <= 4
    for advice in ("clew learner --keys keys/learner", "copy keys/actor ", "clew actor --keys keys/actor"):
        assert advice in result.stdout
    modes = {path: mode for path, (mode, _) in tree(tmp_path).items()}
    assert modes.pop("keys/learner/allowed") == 0o755 & ~umask
    assert modes == {
        "keys": 0o700,
        "keys/learner": 0o700,
        "keys/learner/learner.key_secret": 0o600,
        "keys/learner/allowed/actor.key": 0o644,
        "keys/actor": 0o700,
        "keys/actor/actor.key_secret": 0o600,
        "keys/actor/learner.key": 0o644,
    }


def test_new_keys_never_take_the_place_of_others(made: Path) -> None:
    before = tree(made)
    assert_refused(clew_keys("new", made, folder=made), "learner is there already; .*clew keys add")
    assert tree(made) == before


def test_new_keys_never_take_the_place_of_anything(tmp_path: Path) -> None:
    (tmp_path / "actor").mkdir()
    (tmp_path / "actor" / "mine").touch()
    before = tree(tmp_path)
    assert_refused(clew_keys("new", ".", folder=tmp_path), "actor is there already")
    assert tree(tmp_path) == before


def test_keys_are_added_listed_and_revoked(made: Path) -> None:
    before = tree(made)
    result = clew_keys("add", "bob-2.x_", folder=made.parent)  # DIR is `keys`, if it is not given
    assert (result.returncode, result.stderr) == (0, "")
    assert "clew actor --keys keys/bob-2.x_" in result.stdout
    bob = ActorKeys.of(made / "bob-2.x_")
    listed = clew_keys("list", "--keys", made, folder=made)
    assert listed.stdout.splitlines() == [
        f"actor {ActorKeys.of(made / 'actor').public.decode()}",
        f"bob-2.x_ {bob.public.decode()}",
    ]
    revoked = clew_keys("revoke", "bob-2.x_", "--keys", made, folder=made)
    assert revoked.returncode == 0
    assert re.search("running learner drops it within seconds", revoked.stdout)
    assert tree(made) == before


def test_each_actor_has_a_key_of_its_own_and_the_same_learner(made: Path) -> None:
    keys.add("bob", made)
    actor, bob, learner = (
        ActorKeys.of(made / "actor"),
        ActorKeys.of(made / "bob"),
        LearnerKeys.of(made / "learner"),
    )
    assert len({actor.public, bob.public, learner.public}) == 3
    assert len({actor.secret, bob.secret, learner.secret}) == 3
    assert actor.learner == bob.learner == learner.public
    assert learner.allowed.name_of(bob.public) == "bob"
    assert learner.allowed.name_of(learner.public) is None


@pytest.mark.parametrize("name", ["learner", "", ".bob", "bo b", "../bob", "bob/x", "böb", "bob\n", "b" * 64])
def test_a_name_that_cannot_be_a_file_anywhere_is_refused(name: str, made: Path) -> None:
    before = tree(made.parent)
    with pytest.raises(ClewError, match="is no name for an actor's key"):
        keys.add(name, made)
    assert tree(made.parent) == before


def test_what_cannot_be_added_is_refused_in_one_line(made: Path) -> None:
    (made / "docs").mkdir()
    (made / "docs" / "mine").touch()
    before = tree(made)
    assert_refused(clew_keys("add", "../bob", "--keys", made, folder=made), "is no name")
    assert_refused(clew_keys("add", "actor", "--keys", made, folder=made), "actor has a key already")
    assert_refused(clew_keys("add", "docs", "--keys", made, folder=made), "docs is there already")
    assert tree(made) == before


def test_an_unknown_name_is_not_revoked_and_the_known_ones_are_told(made: Path) -> None:
    keys.add("bob", made)
    before = tree(made)
    for name in ("eve", "../actor", "learner"):
        assert_refused(clew_keys("revoke", name, "--keys", made, folder=made), "choose from actor, bob")
    assert tree(made) == before


def test_revoking_deletes_nothing_that_clew_has_not_made(made: Path) -> None:
    (made / "actor" / "mine").touch()
    keys.revoke("actor", made)
    assert [path.name for path in (made / "actor").iterdir()] == ["mine"]


def test_a_revoked_name_can_be_given_again_with_another_key(made: Path) -> None:
    former = ActorKeys.of(made / "actor").public
    keys.revoke("actor", made)
    keys.add("actor", made)
    allowed = LearnerKeys.of(made / "learner").allowed
    assert allowed.name_of(former) is None
    assert allowed.name_of(ActorKeys.of(made / "actor").public) == "actor"


@pytest.mark.parametrize("command", [("add", "bob"), ("revoke", "actor"), ("list",)], ids=" ".join)
def test_the_directory_of_all_keys_is_wanted(command: tuple[str, ...], made: Path) -> None:
    assert_refused(clew_keys(*command, folder=made), "no keys in keys; .*clew keys new keys")
    learner = made / "learner"
    assert_refused(clew_keys(*command, "--keys", learner, folder=made), f"give --keys {re.escape(str(made))}")


def test_a_directory_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(clew_keys("new", "file/keys", folder=tmp_path), "file/keys.*give another DIR")


def test_a_key_that_is_not_allowed_for_its_file_is_listed_as_such(made: Path) -> None:
    (made / "learner" / "allowed" / "bob.key").touch()
    result = clew_keys("list", "--keys", made, folder=made)
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["actor"]
    assert re.fullmatch(r"clew: .*bob\.key lets nobody in: .*\n", result.stderr)


# At every moment


@pytest.fixture
def open_umask() -> Iterator[None]:
    former = os.umask(0)
    yield
    os.umask(former)


@pytest.mark.usefixtures("open_umask")
def test_a_secret_is_at_no_moment_open_to_others_nor_allowed_half_made(tmp_path: Path) -> None:
    """Looks after every line that runs while keys are made."""
    secrets, halves, seen = [], [], set()

    def look(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in (keys.__file__, zmq.auth.certs.__file__):
            return None
        for path in tmp_path.rglob("*"):
            if path.name.endswith("_secret"):
                seen.add(path.name)
                secrets.append(path.stat().st_mode & 0o077)
                secrets.append(path.parent.stat().st_mode & 0o077)
            if path.suffix == ".key" and path.parent.name == "allowed":
                seen.add(path.name)
                halves.append(b"public-key" not in path.read_bytes())
                halves.append(not (tmp_path / "keys" / path.stem / "actor.key_secret").exists())
        return look

    sys.settrace(look)
    try:
        keys.new(tmp_path / "keys")
        keys.add("bob", tmp_path / "keys")
    finally:
        sys.settrace(None)
    assert {"learner.key_secret", "actor.key_secret", "actor.key", "bob.key"} <= seen
    assert not any(secrets)
    assert not any(halves)


def test_what_fails_half_way_leaves_nothing_and_allows_nobody(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(made)
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ClewError, match=r"cannot keep keys in .*: No space left on device"):
        keys.add("bob", made)
    assert tree(made) == before


def full_disk(_: int) -> None:
    raise OSError(28, "No space left on device")


CHANGING = """
import sys
from pathlib import Path
from deploy.command import keys
for _ in range(150):
    keys.add("bob", Path(sys.argv[1]))
    keys.revoke("bob", Path(sys.argv[1]))
"""


def test_a_running_learner_never_sees_half_a_key(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    allowed, actor = LearnerKeys.of(made / "learner").allowed, ActorKeys.of(made / "actor").public
    command = [sys.executable, "-c", CHANGING, str(made)]
    dropped: set[str] = set()
    rounds = 0
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            dropped |= allowed.refresh()
            rounds += 1
            assert allowed.name_of(actor) == "actor"
    assert process.returncode == 0
    assert rounds > 100
    assert dropped == {"bob"}
    assert caplog.messages == []


# Who may connect


def allow(folder: Path, name: str) -> bytes:
    """The public key of another whom `folder` lets in."""
    public, _ = zmq.curve_keypair()
    (folder / f"{name}.key").unlink(missing_ok=True)
    keys.write(folder / f"{name}.key", public)
    return public


def test_refreshing_tells_whose_key_is_gone_or_another(tmp_path: Path) -> None:
    ann, bob, cid = (allow(tmp_path, name) for name in ("ann", "bob", "cid"))
    allowed = Allowlist(tmp_path)
    assert [allowed.name_of(key) for key in (ann, bob, cid)] == ["ann", "bob", "cid"]
    (tmp_path / "ann.key").unlink()
    new, dan = allow(tmp_path, "bob"), allow(tmp_path, "dan")
    assert allowed.name_of(ann) == "ann"  # as of the last time
    assert allowed.refresh() == {"ann", "bob"}
    assert [allowed.name_of(key) for key in (ann, bob, cid, dan, new)] == [None, None, "cid", "dan", "bob"]
    assert allowed.refresh() == set()


def test_a_damaged_key_is_not_allowed_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ann, bob = allow(tmp_path, "ann"), allow(tmp_path, "bob")
    allowed = Allowlist(tmp_path)
    for damage in REFUSALS:
        (tmp_path / "bob.key").write_bytes(damage)
        allowed.refresh()
        assert allowed.name_of(bob) is None
        assert allowed.name_of(ann) == "ann"
    (tmp_path / "bob.key").write_bytes(b"")
    allowed.refresh()
    caplog.clear()
    (tmp_path / "ann.key").write_bytes(b"")
    assert allowed.refresh() == {"ann"}
    assert allowed.refresh() == set()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("clew", logging.WARNING)
    assert re.fullmatch(r".*ann\.key lets nobody in: .*", record.getMessage())


def test_what_is_no_key_file_never_blocks_nor_lets_anybody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ann = allow(tmp_path, "ann")
    os.mkfifo(tmp_path / "pipe.key")
    (tmp_path / "folder.key").mkdir()
    (tmp_path / "loop.key").symlink_to("loop.key")
    (tmp_path / "device.key").symlink_to("/dev/null")
    (tmp_path / "copy.key").write_bytes((tmp_path / "ann.key").read_bytes())
    for ignored in ("README", ".#ann.key", "._ann.key", "ann.key~"):
        (tmp_path / ignored).write_bytes(b"public-key")
    strangers = [allow(tmp_path, name) for name in ("learner", "a b", "line\nbreak", "\udcff")]
    allowed = Allowlist(tmp_path)
    assert [*map(allowed.name_of, strangers)] == [None] * 4
    assert allowed.name_of(ann) == "ann"
    assert len(caplog.messages) == 9
    assert not any("\n" in message for message in caplog.messages)


def test_without_a_folder_nobody_is_allowed_until_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "allowed"
    folder.mkdir()
    ann = allow(folder, "ann")
    (folder / "bob.key").touch()  # damaged, before and after
    allowed = Allowlist(folder)
    folder.rename(tmp_path / "away")
    assert [allowed.refresh(), allowed.refresh()] == [{"ann"}, set()]
    assert allowed.name_of(ann) is None
    _, message = caplog.messages
    assert re.fullmatch(r"nobody may connect now: cannot read .*allowed.*: No such file or directory; .*", message)
    (tmp_path / "away").rename(folder)
    assert allowed.refresh() == set()
    assert allowed.name_of(ann) == "ann"


def test_a_folder_that_anyone_can_write_to_lets_nobody_in_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ann = allow(tmp_path, "ann")
    allowed = Allowlist(tmp_path)
    tmp_path.chmod(0o1777)  # others can add a key here, if not remove one
    assert allowed.refresh() == {"ann"}
    assert allowed.name_of(ann) is None
    [message] = caplog.messages
    assert re.fullmatch(r"nobody may connect now: anyone can write to .* \(mode 1777\).*; run chmod o-w .*", message)
    tmp_path.chmod(0o755)
    assert allowed.refresh() == set()
    assert allowed.name_of(ann) == "ann"


def test_a_key_that_others_can_replace_is_not_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ann = allow(tmp_path, "ann")
    (tmp_path / "ann.key").chmod(0o666)
    assert Allowlist(tmp_path).name_of(ann) is None
    assert "ann.key lets nobody in: anyone can write to it (mode 0666)" in caplog.text


def lines() -> st.SearchStrategy[bytes]:
    """What looks like a line of a key file."""
    ends = st.binary(max_size=60) | st.binary(min_size=40, max_size=40)
    z85s = st.lists(st.sampled_from(z85.Z85CHARS), min_size=39, max_size=41).map(bytes)
    values = ends | z85s.map(lambda text: b' = "' + text + b'"')
    return st.builds(bytes.__add__, st.sampled_from([b"public-key", b"    secret-key", b"curve", b"#"]), values)


@given(st.binary() | st.lists(lines(), max_size=4).map(b"\n".join))
def test_bytes_that_are_no_key_let_nobody_in_and_stop_nothing(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "bob.key").write_bytes(content)
        allowed = Allowlist(Path(folder))
        assert allowed.refresh() == set()
        assert allowed.name_of(b"") is None
        for line in content.splitlines():
            text = line.partition(b"=")[2].strip(b" \t'\"")
            assert allowed.name_of(text) is None or is_key(text)


@given(st.integers(0, 39), st.binary(max_size=1))
def test_a_key_that_lacks_its_end_lets_nobody_in(length: int, end: bytes) -> None:
    with TemporaryDirectory() as folder:
        text = b'public-key = "' + PUBLIC[:length] + (end if length < 39 else b"")
        (Path(folder) / "bob.key").write_bytes(text)
        assert not any(Allowlist(Path(folder)).name_of(PUBLIC[:length] + rest) for rest in (b"", end))


def is_key(text: bytes) -> bool:
    """Says whether a text is a key, as libzmq judges."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        try:
            link.set(zmq.CURVE_SERVERKEY, text)
        except zmq.ZMQError:
            return False
    return len(text) == 40


# Refusals at the start


def test_a_directory_without_keys_is_refused_with_how_to_make_them(tmp_path: Path) -> None:
    for of, role in ((LearnerKeys.of, "learner"), (ActorKeys.of, "actor")):
        with pytest.raises(ClewError, match=f"no {role} key in .*; make keys with `clew keys new DIR`.*DIR/{role}"):
            of(tmp_path)


def test_the_directory_of_all_keys_is_not_a_partys(made: Path) -> None:
    for of, role in ((LearnerKeys.of, "learner"), (ActorKeys.of, "actor")):
        with pytest.raises(ClewError, match=f"; give --keys {re.escape(str(made / role))}$"):
            of(made)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_secret_that_others_may_read_is_refused(mode: int, made: Path) -> None:
    wanted = rf"can be read by others \(mode {mode:04o}\); run chmod 600 .*_secret, and make a new key"
    for of, role in ((LearnerKeys.of, "learner"), (ActorKeys.of, "actor")):
        (made / role / f"{role}.key_secret").chmod(mode)
        with pytest.raises(ClewError, match=wanted):
            of(made / role)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
@pytest.mark.parametrize("place", ["learner", "learner/allowed", "actor"])
def test_a_key_directory_that_anyone_can_write_to_is_refused(mode: int, place: str, made: Path) -> None:
    (made / place).chmod(mode)
    of = ActorKeys.of if place == "actor" else LearnerKeys.of
    wanted = rf"^anyone can write to {re.escape(str(made / place))} \(mode {mode:04o}\).*; run chmod o-w "
    with pytest.raises(ClewError, match=wanted):
        of(made / place.partition("/")[0])


def test_a_directory_whose_key_directories_anyone_can_exchange_is_refused(made: Path, tmp_path: Path) -> None:
    made.chmod(0o777)
    uses: list[Callable[[], object]] = [
        lambda: LearnerKeys.of(made / "learner"),
        lambda: ActorKeys.of(made / "actor"),
        lambda: keys.add("bob", made),
    ]
    for use in uses:
        with pytest.raises(ClewError, match=r"^anyone can write to .* run chmod o-w "):
            use()
    made.chmod(0o1777)  # as /tmp
    LearnerKeys.of(made / "learner")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ClewError, match=r"^anyone can write to .* run chmod o-w "):
        keys.new(tmp_path / "open")
    assert not list((tmp_path / "open").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("place", ["learner", "learner/allowed", "learner/learner.key_secret", "actor"])
def test_keys_of_another_user_are_refused(place: str, made: Path) -> None:
    os.chown(made / place, 12_345, -1)
    of = ActorKeys.of if place == "actor" else LearnerKeys.of
    with pytest.raises(ClewError, match=rf"{re.escape(str(made / place))}.* belongs to another user \(id 12345\)"):
        of(made / place.partition("/")[0])


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_learners_key_that_anyone_can_replace_is_refused(mode: int, made: Path) -> None:
    (made / "actor" / "learner.key").chmod(mode)
    with pytest.raises(ClewError, match=rf"learner\.key.*: anyone can write to it \(mode {mode:04o}\)"):
        ActorKeys.of(made / "actor")


@pytest.fixture
def read_only(made: Path) -> Iterator[Path]:
    """Keys on a volume of Kubernetes: open to all by its mode, and mounted to be read."""
    if os.geteuid() or subprocess.run(["mount", "--bind", made, made], capture_output=True).returncode:
        pytest.skip("only root can mount, where it is allowed at all")
    try:
        for folder in (made, made / "learner", made / "learner" / "allowed"):
            folder.chmod(0o777)
        subprocess.run(["mount", "-o", "remount,bind,ro", made], check=True)
        yield made
    finally:
        subprocess.run(["umount", "--lazy", made], check=True)


def test_a_volume_that_can_only_be_read_is_trusted_whatever_its_mode(read_only: Path) -> None:
    assert LearnerKeys.of(read_only / "learner").allowed.name_of(ActorKeys.of(read_only / "actor").public) == "actor"


@pytest.mark.parametrize("damage", [*REFUSALS, b'public-key = "' + PUBLIC + b'"'])
def test_a_damaged_secret_is_refused_in_one_sentence(damage: bytes, made: Path) -> None:
    for of, role in ((LearnerKeys.of, "learner"), (ActorKeys.of, "actor")):
        (made / role / f"{role}.key_secret").write_bytes(damage)
        with pytest.raises(ClewError, match=rf"{role}\.key_secret.*; .*`clew keys") as refusal:
            of(made / role)
        assert "\n" not in str(refusal.value)


def test_a_pair_that_does_not_belong_together_is_refused(made: Path) -> None:
    path = made / "actor" / "actor.key_secret"
    path.write_bytes(path.read_bytes().replace(ActorKeys.of(made / "actor").public, PUBLIC))
    with pytest.raises(ClewError, match="no secret key of its public one"):
        ActorKeys.of(made / "actor")


def test_a_refusal_never_shows_a_secret(made: Path) -> None:
    path = made / "actor" / "actor.key_secret"
    secret = ActorKeys.of(made / "actor").secret
    path.write_bytes(path.read_bytes().replace(secret, secret[:-1]))
    with pytest.raises(ClewError) as refusal:
        ActorKeys.of(made / "actor")
    assert secret[:10].decode() not in str(refusal.value)


@pytest.mark.parametrize("damage", [*REFUSALS, None])
def test_an_actor_needs_the_learners_key(damage: bytes | None, made: Path) -> None:
    (made / "actor" / "learner.key").unlink()
    if damage is not None:
        (made / "actor" / "learner.key").write_bytes(damage)
    with pytest.raises(ClewError, match=r"learner\.key, the learner's public key: .*; copy the whole directory"):
        ActorKeys.of(made / "actor")


def test_a_learner_starts_with_no_allowed_key_that_is_damaged_and_none_that_is_missing(made: Path) -> None:
    (made / "learner" / "allowed" / "bob.key").write_bytes(b"public-key")
    with pytest.raises(ClewError, match=r"bob\.key lets nobody in: .*; delete it"):
        LearnerKeys.of(made / "learner")
    (made / "learner" / "allowed").rename(made / "elsewhere")
    with pytest.raises(ClewError, match=r"cannot read .*allowed.*: No such file or directory; copy"):
        LearnerKeys.of(made / "learner")


def test_a_learner_may_start_before_anybody_is_allowed(made: Path) -> None:
    actor = ActorKeys.of(made / "actor").public
    keys.revoke("actor", made)
    assert LearnerKeys.of(made / "learner").allowed.name_of(actor) is None


def test_the_files_are_those_of_pyzmq(made: Path) -> None:
    learner, actor = LearnerKeys.of(made / "learner"), ActorKeys.of(made / "actor")
    load = zmq.auth.load_certificate
    assert load(made / "learner" / "learner.key_secret") == (learner.public, learner.secret)
    assert load(made / "actor" / "actor.key_secret") == (actor.public, actor.secret)
    assert load(made / "actor" / "learner.key") == (learner.public, None)
    assert zmq.auth.load_certificates(made / "learner" / "allowed") == {actor.public: True}
