//! The lock file: versions without known advisories, and no HTTP/2. Without the feature `cluster` there is no `redis`.

use std::path::Path;
use std::process::Command;

/// Crates with their minimum versions.
const FLOORS: [(&str, [u32; 3]); 4] =
    [("rustls", [0, 23, 45]), ("rustls-webpki", [0, 103, 13]), ("pyo3", [0, 29, 0]), ("tokio-tungstenite", [0, 30, 0])];

/// Names and versions of all packages.
fn packages() -> Vec<(String, [u32; 3])> {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let field = |package: &str, name: &str| {
        let line = package.lines().find(|line| line.starts_with(name))?;
        Some(line.split('"').nth(1)?.to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|package| {
            let version = field(package, "version = ")?;
            let numbers: Vec<u32> =
                version.split(['.', '-', '+']).take(3).map(|part| part.parse().unwrap_or(0)).collect();
            Some((field(package, "name = ")?, numbers.try_into().ok()?))
        })
        .collect()
}

#[test]
fn dependencies_have_their_minimum_versions() {
    let packages = packages();
    assert!(packages.len() > 100);
    for (name, floor) in FLOORS {
        let found: Vec<_> = packages.iter().filter(|(found, _)| found == name).collect();
        assert!(!found.is_empty(), "{name} is not in the lock file");
        assert!(found.iter().all(|(_, version)| *version >= floor), "{found:?} is below {floor:?}");
    }
}

#[test]
fn dependencies_have_one_tls_and_no_http_2() {
    let packages = packages();
    for absent in ["h2", "openssl", "native-tls", "aws-lc-rs", "aws-lc-sys"] {
        assert!(packages.iter().all(|(name, _)| name != absent), "{absent}");
    }
    for (name, _) in FLOORS {
        assert_eq!(packages.iter().filter(|(found, _)| found == name).count(), 1, "two of {name}");
    }
}

/// Names of the packages of a build with these features.
fn packages_of(features: &[&str]) -> Vec<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    let told = cargo.args(features).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let lines = String::from_utf8(told.stdout).unwrap();
    lines.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[test]
fn only_the_feature_cluster_needs_redis() {
    let redis = "redis".to_owned();
    assert!(packages_of(&["--features", "python"]).contains(&redis));
    let without = packages_of(&["--no-default-features", "--features", "python"]);
    assert!(without.contains(&"pyo3".to_owned()));
    assert!(!without.contains(&redis));
}
