//! The certificate that a server keeps on disk: made once, renewed, replaced, and never written over what is not its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use cuttlefish_signaling::Error;
use cuttlefish_signaling::certificates::{self, Authority, Facts, Names};
use cuttlefish_signaling::state_dir::{self, Kept};
use rcgen::KeyPair;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

const FILES: [&str; 4] = ["authority.key", "authority.pem", "server.key", "server.pem"];
const USUAL: [&str; 3] = ["localhost", "lab-7", "127.0.0.1"];

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A directory of which one start has made the files.
struct State {
    _folder: TempDir,
    path: PathBuf,
    first: Kept,
}

impl State {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("state");
        let first = state_dir::tls(&path, &texts(&USUAL), None, now()).unwrap();
        Self { _folder: folder, path, first }
    }

    fn start(&self, names: &[&str], now: OffsetDateTime) -> Result<Kept, Error> {
        state_dir::tls(&self.path, &texts(names), None, now)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn facts(&self, name: &str) -> Facts {
        let pem = fs::read_to_string(self.file(name)).unwrap();
        Facts::of(&certificates::from_pem(&pem).unwrap()).unwrap()
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        contents(&self.path)
    }
}

/// Names and contents; a directory and a broken link have none.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let read = |path: PathBuf| fs::read(path).unwrap_or_default();
    entries.map(|entry| (entry.file_name().into_string().unwrap(), read(entry.path()))).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn warnings(kept: &Kept) -> Vec<&str> {
    kept.notices.iter().filter(|notice| notice.is_warning).map(|notice| &*notice.text).collect()
}

#[test]
fn the_first_start_makes_private_files() {
    let state = State::new();
    assert_eq!(mode(&state.path), 0o700);
    assert_eq!(mode(state.path.parent().unwrap()), 0o700);
    let mut found: Vec<_> = state.contents().into_keys().collect();
    found.retain(|name| name != "lock");
    assert_eq!(found, FILES);
    assert_eq!(state.contents()["lock"], b"");
    for name in FILES.iter().chain(&["lock"]) {
        assert_eq!(mode(&state.file(name)), 0o600, "{name}");
    }
    assert_eq!(state.first.authority_file, state.file("authority.pem"));
    let pem = fs::read_to_string(state.file("authority.pem")).unwrap();
    assert_eq!(state.first.tls.authority_pem().as_deref(), Some(&*pem));
    assert!(!pem.contains("KEY"));
    assert_eq!(warnings(&state.first), [""; 0]);
    assert!(state.first.notices[0].text.contains("made an authority for localhost, lab-7, 127.0.0.1"));
}

#[test]
fn a_later_start_has_the_same_certificate() {
    let state = State::new();
    let before = state.contents();
    let later = state.start(&["127.0.0.1", "LAB-7", "localhost"], now() + Duration::days(700)).unwrap();
    assert_eq!(later.tls.fingerprint(), state.first.tls.fingerprint());
    assert_eq!(later.tls.authority_fingerprint(), state.first.tls.authority_fingerprint());
    assert_eq!(later.notices, []);
    assert_eq!(state.contents(), before);
}

#[test]
fn a_certificate_is_renewed_thirty_days_before_it_expires() {
    let state = State::new();
    let early = now() + Duration::days(824 - 31);
    assert_eq!(state.start(&USUAL, early).unwrap().tls.fingerprint(), state.first.tls.fingerprint());
    let due = now() + Duration::days(824 - 30);
    let before = state.contents();
    let renewed = state.start(&USUAL, due).unwrap();
    assert_ne!(renewed.tls.fingerprint(), state.first.tls.fingerprint());
    assert_eq!(renewed.tls.authority_fingerprint(), state.first.tls.authority_fingerprint());
    assert_eq!(warnings(&renewed), [""; 0]);
    assert!(renewed.notices[0].text.contains("the certificate of the server expires on"), "{:?}", renewed.notices);
    assert_eq!(state.facts("server.pem").not_after, due + Duration::days(824));
    let changed: Vec<_> = FILES.iter().filter(|name| state.contents()[**name] != before[**name]).collect();
    assert_eq!(changed, [&"server.pem"], "one rename renews");
    assert_eq!(state.start(&USUAL, due).unwrap().tls.fingerprint(), renewed.tls.fingerprint());
}

#[test]
fn an_authority_near_its_end_is_replaced_with_a_warning() {
    let state = State::new();
    let end = state.facts("authority.pem").not_after;
    let last = state.start(&USUAL, end - Duration::days(31)).unwrap();
    assert_eq!(last.tls.authority_fingerprint(), state.first.tls.authority_fingerprint());
    assert_eq!(state.facts("server.pem").not_after, end, "not longer than the authority");
    let replaced = state.start(&USUAL, end - Duration::days(30)).unwrap();
    assert_ne!(replaced.tls.authority_fingerprint(), last.tls.authority_fingerprint());
    let [warning] = warnings(&replaced)[..] else { panic!("{:?}", replaced.notices) };
    assert!(warning.contains(&format!("authority.pem expires on {}: a new one replaces it", end.date())), "{warning}");
    assert!(warning.contains("clients have to trust it anew"), "{warning}");
    assert_eq!(state.start(&USUAL, end - Duration::days(30)).unwrap().notices, []);
}

#[test]
fn a_clock_that_is_behind_replaces_nothing() {
    let state = State::new();
    let before = state.contents();
    assert_eq!(state.start(&USUAL, OffsetDateTime::UNIX_EPOCH).unwrap().notices, []);
    assert_eq!(state.contents(), before);
}

#[test]
fn changed_names_that_the_authority_covers_are_told() {
    let state = State::new();
    let changed = state.start(&["localhost", "10.0.0.7"], now()).unwrap();
    assert_eq!(changed.tls.authority_fingerprint(), state.first.tls.authority_fingerprint());
    assert_ne!(changed.tls.fingerprint(), state.first.tls.fingerprint());
    let told = "the names of the server have changed: its certificate was for localhost, lab-7, 127.0.0.1, and the new \
                one is for localhost, 10.0.0.7";
    assert_eq!(warnings(&changed), [told]);
    assert_eq!(state.facts("server.pem").names.to_texts(), ["localhost", "10.0.0.7"]);
}

#[test]
fn changed_names_beyond_the_authority_replace_it_and_are_told() {
    let state = State::new();
    let changed = state.start(&["localhost", "signal.lab"], now()).unwrap();
    assert_ne!(changed.tls.authority_fingerprint(), state.first.tls.authority_fingerprint());
    let told = warnings(&changed);
    assert!(
        told[0].contains("may not sign for all of the names localhost, signal.lab: a new one replaces it"),
        "{told:?}"
    );
    assert!(told[0].contains("trust it anew"), "{told:?}");
    assert!(told[1].contains("was for localhost, lab-7, 127.0.0.1, and the new one is for"), "{told:?}");
    assert_eq!(state.contents().len(), FILES.len() + 1);
    let again = state.start(&["localhost", "signal.lab"], now()).unwrap();
    assert_eq!((again.tls.fingerprint(), &again.notices[..]), (changed.tls.fingerprint(), &[][..]));
}

#[test]
fn the_authority_alone_is_made_once_and_leaves_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (pem, notices) = state_dir::authority_pem(&path, &texts(&USUAL), now()).unwrap();
    assert_eq!(notices.len(), 1);
    let kept = state_dir::tls(&path, &texts(&USUAL), None, now()).unwrap();
    assert_eq!(kept.tls.authority_pem().as_deref(), Some(&*pem));
    let before = contents(&path);
    let again = state_dir::authority_pem(&path, &texts(&["localhost"]), now()).unwrap();
    assert_eq!(again, (pem.clone(), Vec::new()));
    assert_eq!(contents(&path), before);
    let (other, notices) = state_dir::authority_pem(&path, &texts(&["signal.lab"]), now()).unwrap();
    assert_ne!(other, pem);
    assert!(notices[0].is_warning);
    assert!(!contents(&path).contains_key("server.pem"), "the former authority has signed it");
    let kept = state_dir::tls(&path, &texts(&["signal.lab"]), None, now()).unwrap();
    assert_eq!((kept.tls.authority_pem().as_deref(), kept.notices), (Some(&*other), Vec::new()));
}

#[test]
fn a_start_that_fails_later_changes_no_file() {
    let state = State::new();
    let before = state.contents();
    let (kept, unsaved) = state_dir::prepare(&state.path, &texts(&["signal.lab"]), None, now()).unwrap();
    drop(unsaved);
    assert_eq!(warnings(&kept).len(), 2);
    assert_eq!(state.contents(), before);
}

#[test]
fn starts_at_once_end_with_the_same_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let start = || state_dir::tls(&path, &texts(&USUAL), None, now()).unwrap();
    let kept: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for one in &kept {
        assert_eq!(one.tls.fingerprint(), kept[0].tls.fingerprint());
        assert_eq!(one.tls.authority_fingerprint(), kept[0].tls.authority_fingerprint());
    }
    assert_eq!(kept.iter().filter(|one| !one.notices.is_empty()).count(), 1, "one has made it");
}

/// A file, what becomes of it, and words of the error.
type Damage = (&'static str, fn(&Path), &'static [&'static str]);

const DAMAGES: [Damage; 16] = [
    ("authority.pem", |file| fs::write(file, "garbage").unwrap(), &["has 0 certificates", "remove authority.pem"]),
    ("authority.pem", |file| fs::write(file, "\u{ff}garbage").unwrap(), &["has 0 certificates", "trust anew"]),
    ("authority.pem", |file| fs::write(file, [0xff; 9]).unwrap(), &["cannot be read"]),
    ("authority.pem", |file| fs::write(file, [b'x'; 70_000]).unwrap(), &["has 70000 bytes", "move it away"]),
    ("authority.pem", |file| drop(fs::copy(file.with_file_name("server.pem"), file)), &["CA:TRUE"]),
    ("authority.pem", |file| fs::remove_file(file).unwrap(), &["certificate of authority.key is missing"]),
    ("authority.key", |file| fs::write(file, "garbage").unwrap(), &["is not a private key", "trust anew"]),
    ("authority.key", |file| fs::remove_file(file).unwrap(), &["key of authority.pem is missing", "remove"]),
    ("server.pem", |file| fs::write(file, "").unwrap(), &["has 0 certificates", "remove server.pem and server.key"]),
    ("server.pem", sign_elsewhere, &["was not signed by the authority in authority.pem"]),
    ("server.key", |file| fs::remove_file(file).unwrap(), &["key of server.pem is missing", "remove"]),
    ("server.key", |file| fs::write(file, "garbage").unwrap(), &["is not a private key", "remove"]),
    ("server.key", |file| fs::set_permissions(file, PermissionsExt::from_mode(0o640)).unwrap(), &["0640", "chmod 600"]),
    ("authority.key", make_link, &["is a symbolic link"]),
    ("server.key", make_directory, &["is a directory"]),
    ("lock", |file| fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap(), &["0644", "chmod 600"]),
];

fn make_link(file: &Path) {
    fs::rename(file, file.with_file_name("elsewhere")).unwrap();
    symlink("elsewhere", file).unwrap();
}

fn make_directory(file: &Path) {
    fs::remove_file(file).unwrap();
    fs::create_dir(file).unwrap();
}

/// A certificate for the key that is there, of an authority that is not.
fn sign_elsewhere(file: &Path) {
    let names = Names::parse(&texts(&USUAL)).unwrap();
    let key = KeyPair::from_pem(&fs::read_to_string(file.with_file_name("server.key")).unwrap()).unwrap();
    let certificate = Authority::generate(&names, now()).unwrap().issue(&names, &key, now()).unwrap();
    fs::write(file, certificates::to_pem(&certificate)).unwrap();
}

#[test]
fn a_broken_file_is_named_and_stays() {
    for (name, damage, words) in DAMAGES {
        let state = State::new();
        damage(&state.file(name));
        let before = state.contents();
        for error in [
            state.start(&USUAL, now()).unwrap_err(),
            state.start(&["other.lab"], now() + Duration::days(5000)).unwrap_err(),
            state_dir::authority_pem(&state.path, &texts(&USUAL), now()).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.starts_with(&format!("{}: ", state.file(name).display())), "{name}: {text}");
            assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
        }
        assert_eq!(state.contents(), before, "{name} {words:?}");
    }
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let (state, other) = (State::new(), State::new());
    for (key, certificate) in [("authority.key", "authority.pem"), ("server.key", "server.pem")] {
        let right = fs::read(state.file(key)).unwrap();
        fs::write(state.file(key), fs::read(other.file(key)).unwrap()).unwrap();
        let error = state.start(&USUAL, now()).unwrap_err().to_string();
        assert!(error.contains(&format!("{certificate}: does not belong to the private key")), "{error}");
        assert!(error.contains("remove"), "{error}");
        fs::write(state.file(key), right).unwrap();
    }
    assert_eq!(state.start(&USUAL, now()).unwrap().notices, []);
}

#[test]
fn the_cure_of_a_broken_file_works() {
    let state = State::new();
    fs::remove_file(state.file("authority.key")).unwrap();
    for name in ["authority.pem", "server.pem"] {
        fs::remove_file(state.file(name)).unwrap();
    }
    let kept = state.start(&USUAL, now()).unwrap();
    assert_ne!(kept.tls.authority_fingerprint(), state.first.tls.authority_fingerprint());
}

#[test]
fn an_interrupted_start_is_finished_or_undone() {
    // Before the first rename: the new files are left beside the old ones.
    let state = State::new();
    for name in FILES {
        let staged = state.file(&format!("{name}.new"));
        fs::write(&staged, "half a fil").unwrap();
        fs::set_permissions(&staged, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let kept = state.start(&USUAL, now()).unwrap();
    assert_eq!(kept.tls.fingerprint(), state.first.tls.fingerprint());
    assert_eq!(state.contents().len(), FILES.len() + 1);

    // Behind the rename of the authority's certificate: its key waits beside that of the former one.
    let other = State::new();
    fs::remove_file(state.file("server.pem")).unwrap();
    fs::write(state.file("authority.pem"), &other.contents()["authority.pem"]).unwrap();
    let staged = state.file("authority.key.new");
    fs::copy(other.file("authority.key"), staged).unwrap();
    let kept = state.start(&USUAL, now()).unwrap();
    assert_eq!(kept.tls.authority_fingerprint(), other.first.tls.authority_fingerprint());
    assert_eq!(state.contents()["authority.key"], other.contents()["authority.key"]);
    assert_eq!(state.contents().len(), FILES.len() + 1);

    // Before the last rename: a key without a certificate.
    fs::remove_file(state.file("server.pem")).unwrap();
    let key = state.contents()["server.key"].clone();
    state.start(&USUAL, now()).unwrap();
    assert_eq!(state.contents()["server.key"], key);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o770)).unwrap();
    let error = state_dir::tls(&path, &texts(&USUAL), None, now()).unwrap_err().to_string();
    assert!(error.contains("other users may write to the directory (mode 0770): chmod 700"), "{error}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    // systemd makes 0755: the files are private all the same.
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    state_dir::tls(&path, &texts(&USUAL), None, now()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = state_dir::tls(&path, &texts(&USUAL), None, now()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: the directory cannot be made: ", path.display())), "{error}");
    }
}

#[test]
fn file_of_another_user_is_refused() {
    let state = State::new();
    // Root gives files away; others find a directory of root's.
    let is_root = chown(state.file("server.key"), Some(12345), None).is_ok();
    if is_root {
        let before = state.contents();
        let error = state.start(&USUAL, now()).unwrap_err().to_string();
        assert!(error.contains("server.key: belongs to user id 12345") && error.contains("chown the file"), "{error}");
        assert_eq!(state.contents(), before);
        chown(&state.path, Some(12345), None).unwrap();
    }
    let path = if is_root { &state.path } else { Path::new("/usr") };
    let error = state_dir::tls(path, &texts(&USUAL), None, now()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: belongs to user id ", path.display())), "{error}");
    assert!(error.contains("chown the directory"), "{error}");
}
