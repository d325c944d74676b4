//! A certificate that is renewed while a server runs: from its files, by any kind of replacement, and in its directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cuttlefish_signaling::tls::TlsFiles;
use cuttlefish_signaling::{Error, Tls, state_dir};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A certificate and its key, both PEM.
fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn error(tls: &Tls) -> String {
    let before = tls.fingerprint();
    let error = tls.renew(now()).expect_err("it was renewed");
    assert!(matches!(error, Error::Tls(_) | Error::StateDir { .. }));
    assert_eq!(tls.fingerprint(), before, "the old one stays");
    error.to_string()
}

/// The certificate of files, and their folder.
struct Files {
    folder: TempDir,
    tls: Tls,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a pair to a subfolder, from which `live` leads to it.
    fn at(live: &Path, of: &Path, client_ca: Option<&str>) -> Tls {
        let files = TlsFiles {
            certificate: live.join("cert.pem"),
            key: live.join("key.pem"),
            client_ca: client_ca.map(|name| of.join(name)),
        };
        let read = |path: &Path| fs::read(path).unwrap();
        let (certificate, key, ca) = (read(&files.certificate), read(&files.key), files.client_ca.as_deref().map(read));
        Tls::from_pem_of(files, &certificate, &key, ca.as_deref()).unwrap()
    }

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &pair("one.lab"));
        let tls = Self::at(folder.path(), folder.path(), None);
        Self { folder, tls }
    }
}

fn write(folder: &Path, (certificate, key): &(String, String)) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("cert.pem"), certificate).unwrap();
    fs::write(folder.join("key.pem"), key).unwrap();
}

#[test]
fn new_files_are_taken_once_and_reach_all_clones() {
    let files = Files::new();
    let (clone, before) = (files.tls.clone(), files.tls.server_config());
    let (old, pem) = (files.tls.fingerprint(), files.tls.trusted_pem());
    assert!(files.tls.renew(now()).unwrap().is_none(), "nothing has changed");
    write(files.folder.path(), &pair("two.lab"));
    let renewed = files.tls.renew(now()).unwrap().unwrap();
    assert_ne!(renewed.fingerprint, old);
    assert_eq!(clone.fingerprint(), renewed.fingerprint);
    assert_ne!(clone.trusted_pem(), pem);
    assert!(!std::sync::Arc::ptr_eq(&before, &clone.server_config()));
    assert!(files.tls.renew(now()).unwrap().is_none());
}

#[test]
fn content_counts_and_not_the_time() {
    let files = Files::new();
    let kept = fs::read(files.path("cert.pem")).unwrap();
    fs::write(files.path("cert.pem"), &kept).unwrap();
    assert!(files.tls.renew(now()).unwrap().is_none(), "the same content, written later");
    let modified = fs::metadata(files.path("cert.pem")).unwrap().modified().unwrap();
    write(files.folder.path(), &pair("two.lab"));
    for name in ["cert.pem", "key.pem"] {
        let file = fs::File::options().write(true).open(files.path(name)).unwrap();
        file.set_modified(modified).unwrap();
    }
    assert!(files.tls.renew(now()).unwrap().is_some(), "another content, of the same time");
}

/// ACME clients swap the link of a file, and Kubernetes the link of the folder that the links of files lead to.
#[test]
fn swapped_links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, name) in [("..2026_1", "one.lab"), ("..2026_2", "two.lab"), ("..2026_3", "three.lab")] {
        write(&at(version), &pair(name));
    }
    symlink("..2026_1", at("..data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    let tls = Files::at(folder.path(), folder.path(), None);
    let mut seen = vec![tls.fingerprint()];
    for version in ["..2026_2", "..2026_3"] {
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        seen.push(tls.renew(now()).unwrap().unwrap().fingerprint);
    }
    for name in ["cert.pem", "key.pem"] {
        symlink(Path::new("..2026_1").join(name), at("new")).unwrap();
        fs::rename(at("new"), at(name)).unwrap();
    }
    seen.push(tls.renew(now()).unwrap().unwrap().fingerprint);
    assert_eq!(seen[0], seen[3]);
    assert!(seen[0] != seen[1] && seen[1] != seen[2]);
}

#[test]
fn half_written_pair_keeps_the_old_one_names_the_file_and_is_tried_again() {
    let files = Files::new();
    let (certificate, key) = pair("two.lab");
    let shown = |name: &str| files.path(name).display().to_string();
    let put = |name: &str, text: &str| fs::write(files.path(name), text).unwrap();
    put("cert.pem", &certificate);
    let (cert, secret) = (shown("cert.pem"), shown("key.pem"));
    assert_eq!(
        error(&files.tls),
        format!("tls: the certificate {cert} and the private key {secret} do not belong together")
    );
    put("key.pem", &key[..key.len() / 2]);
    assert!(error(&files.tls).starts_with(&format!("tls: the private key {secret} is not valid PEM")));
    put("key.pem", &key);
    put("cert.pem", "");
    assert!(error(&files.tls).contains(&format!("in the PEM of the certificate {cert}")));
    put("cert.pem", &certificate[..certificate.len() / 2]);
    assert!(error(&files.tls).contains(&cert));
    fs::remove_file(files.path("cert.pem")).unwrap();
    assert_eq!(error(&files.tls), format!("tls: the certificate {cert} cannot be read: No such file or directory"));
    fs::create_dir(files.path("cert.pem")).unwrap();
    assert_eq!(error(&files.tls), format!("tls: the certificate {cert} cannot be read: it is not a plain file"));
    fs::remove_dir(files.path("cert.pem")).unwrap();
    fs::write(files.path("cert.pem"), vec![b'\n'; 1024 * 1024 + 1]).unwrap();
    assert!(error(&files.tls).ends_with("it has more than 1048576 bytes"));
    put("cert.pem", &certificate);
    assert!(files.tls.renew(now()).unwrap().is_some());
}

#[test]
fn authorities_of_clients_are_renewed_too() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &pair("one.lab"));
    let ca = |name: &str| Tls::self_signed(&[name.to_owned()], None).unwrap().authority_pem().unwrap();
    fs::write(folder.path().join("ca.pem"), ca("a.lab")).unwrap();
    let tls = Files::at(folder.path(), folder.path(), Some("ca.pem"));
    assert!(tls.asks_clients());
    assert!(tls.renew(now()).unwrap().is_none());
    let before = (tls.server_config(), tls.fingerprint());
    fs::write(folder.path().join("ca.pem"), ca("b.lab")).unwrap();
    assert!(tls.renew(now()).unwrap().is_some());
    assert_eq!(tls.fingerprint(), before.1);
    assert!(!std::sync::Arc::ptr_eq(&before.0, &tls.server_config()));
    fs::write(folder.path().join("ca.pem"), "none").unwrap();
    let path = folder.path().join("ca.pem").display().to_string();
    assert!(error(&tls).contains(&format!("the authority of clients {path}")));
}

#[test]
fn certificate_in_memory_stays() {
    let (certificate, key) = pair("one.lab");
    for tls in [
        Tls::from_pem(certificate.as_bytes(), key.as_bytes(), None).unwrap(),
        Tls::self_signed(&["localhost".into()], None).unwrap(),
    ] {
        assert!(!tls.is_renewable());
        assert!(tls.renew(now()).unwrap().is_none());
    }
}

#[test]
fn certificates_are_the_same_if_content_and_source_are() {
    let files = Files::new();
    let again = Files::at(files.folder.path(), files.folder.path(), None);
    assert!(files.tls.is_same(&again));
    let (certificate, key) = ["cert.pem", "key.pem"].map(|name| fs::read(files.path(name)).unwrap()).into();
    assert!(!files.tls.is_same(&Tls::from_pem(&certificate, &key, None).unwrap()), "another source");
    write(files.folder.path(), &pair("two.lab"));
    assert!(!files.tls.is_same(&Files::at(files.folder.path(), files.folder.path(), None)), "another content");
}

// The state directory ---------------------------------------------------------------------------------------------------

const NAMES: [&str; 2] = ["localhost", "lab-7"];

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn certificate_of_a_directory_is_renewed_in_its_last_days_by_the_same_authority() {
    let folder = tempfile::tempdir().unwrap();
    let tls = state_dir::tls(folder.path(), &names(&NAMES), None, now()).unwrap().tls;
    let (old, authority) = (tls.fingerprint(), tls.authority_pem());
    for days in [0, 1, 793] {
        assert!(tls.renew(now() + Duration::days(days)).unwrap().is_none(), "{days}");
    }
    let renewed = tls.renew(now() + Duration::days(795)).unwrap().unwrap();
    assert_ne!(renewed.fingerprint, old);
    assert_eq!((tls.fingerprint(), tls.authority_pem()), (renewed.fingerprint, authority));
    assert!(renewed.notices[0].text.contains("renewed"), "{:?}", renewed.notices);
    assert!(tls.renew(now() + Duration::days(795)).unwrap().is_none());
    let again = state_dir::tls(folder.path(), &names(&NAMES), None, now() + Duration::days(795)).unwrap();
    assert_eq!(again.tls.fingerprint(), tls.fingerprint(), "it was written");
}

#[test]
fn certificate_that_another_process_has_renewed_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let ours = state_dir::tls(folder.path(), &names(&NAMES), None, now()).unwrap().tls;
    let theirs = state_dir::tls(folder.path(), &names(&NAMES), None, now() + Duration::days(800)).unwrap().tls;
    assert_ne!(ours.fingerprint(), theirs.fingerprint());
    assert!(ours.renew(now()).unwrap().is_some());
    assert_eq!(ours.fingerprint(), theirs.fingerprint());
}

#[test]
fn another_authority_needs_a_restart_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let tls = state_dir::tls(folder.path(), &names(&NAMES), None, now()).unwrap().tls;
    for name in ["authority.pem", "authority.key", "server.pem", "server.key"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert!(error(&tls).ends_with("restart the server to use another one"), "{}", error(&tls));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}
