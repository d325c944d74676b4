//! The lock file: versions without known advisories, and no HTTP/2.

use std::path::Path;

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
