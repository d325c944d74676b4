//! TLS to the engine.

use std::path::PathBuf;

use cuttlefish_signaling::core::cluster::registry::Timing;
use cuttlefish_signaling::server::cluster::engine::{Connection, Engine as _, EngineError};
use cuttlefish_signaling::server::cluster::redis::Redis;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::join_as;
use super::server::{Sentinel, Server, free_port, runtime, settings};

/// An authority, and a certificate by it for `127.0.0.1` and `engine.invalid`.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "engine.invalid".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(dir.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the options of a server with the certificate, which asks clients for none.
    fn options(&self, port: u16) -> Vec<String> {
        let file = |name| self.file(name).display().to_string();
        let options = ["--tls-port", &port.to_string(), "--tls-auth-clients", "no"].map(str::to_owned);
        let files = [("--tls-cert-file", "cert.pem"), ("--tls-key-file", "key.pem"), ("--tls-ca-cert-file", "ca.pem")];
        options
            .into_iter()
            .chain(files.into_iter().flat_map(|(option, name)| [option.to_owned(), file(name)]))
            .collect()
    }

    /// Starts a server with the certificate.
    fn serve(&self, port: u16) -> Server {
        let options = self.options(port);
        Server::start(&options.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

async fn connect(url: &str, ca: Option<PathBuf>) -> Result<Connection, EngineError> {
    let mut settings = settings(url, Timing::default());
    settings.ca = ca;
    Redis::new(&settings)?.connect().await
}

async fn error(url: &str, ca: Option<PathBuf>) -> EngineError {
    match connect(url, ca).await {
        Ok(_) => panic!("{url} is trusted"),
        Err(error) => error,
    }
}

#[test]
fn certificate_is_checked_against_the_authority() {
    let (authority, other) = (Authority::new("lab"), Authority::new("other"));
    let port = free_port();
    let _server = authority.serve(port);
    let url = format!("rediss://127.0.0.1:{port}");
    runtime().block_on(async {
        let connection = connect(&url, Some(authority.file("ca.pem"))).await.unwrap();
        connection.commands.execute(join_as("a")).await.unwrap();
        // Not by another authority, and not for another name of this machine.
        let refused = error(&url, Some(other.file("ca.pem"))).await;
        assert_eq!(refused.kind, "tls", "{refused}");
        assert!(refused.what.contains("--cluster-ca"), "{refused}");
        let named = error(&format!("rediss://localhost:{port}"), Some(authority.file("ca.pem"))).await;
        assert_eq!(named.kind, "tls", "{named}");
        let encrypted = error(&format!("redis://127.0.0.1:{port}"), None).await;
        assert!(["lost", "not_redis"].contains(&encrypted.kind), "{encrypted}");
        assert!(encrypted.what.contains("rediss://"), "{encrypted}");
    });
}

/// `rediss+sentinel://` is TLS to the Sentinels and to the master.
#[test]
fn certificates_of_sentinel_and_master_are_checked() {
    let (authority, other) = (Authority::new("lab"), Authority::new("other"));
    let (port, sentinel_port) = (free_port(), free_port());
    let _server = authority.serve(port);
    let lines: Vec<_> = authority
        .options(sentinel_port)
        .chunks(2)
        .map(|option| format!("{} {}\n", option[0].trim_start_matches('-'), option[1]))
        .collect();
    let _sentinel = Sentinel::start_with(port, &format!("{}tls-replication yes", lines.concat()));
    let url = format!("rediss+sentinel://127.0.0.1:{sentinel_port}/lab");
    runtime().block_on(async {
        let connection = connect(&url, Some(authority.file("ca.pem"))).await.unwrap();
        connection.commands.execute(join_as("a")).await.unwrap();
        let sentinels = format!("127.0.0.1:{sentinel_port} refuses TLS");
        let refused = error(&url, Some(other.file("ca.pem"))).await;
        assert_eq!(refused.kind, "tls", "{refused}");
        assert!(refused.what.contains(&sentinels) && refused.what.contains("--cluster-ca"), "{refused}");
        let encrypted = error(&format!("redis+sentinel://127.0.0.1:{sentinel_port}/lab"), None).await;
        assert!(["lost", "not_redis"].contains(&encrypted.kind), "{encrypted}");
        assert!(encrypted.what.contains("rediss+sentinel://"), "{encrypted}");
    });
}

#[test]
fn file_of_the_authority_is_read_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    for (path, what) in [(empty, "no certificate authority"), (dir.path().join("missing.pem"), "missing.pem")] {
        let mut settings = settings("rediss://127.0.0.1", Timing::default());
        settings.ca = Some(path);
        let Err(error) = Redis::new(&settings) else { panic!("accepted") };
        assert_eq!(error.kind, "settings");
        assert!(error.what.contains(what), "{error}");
    }
}
