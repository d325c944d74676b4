//! The `OpenAPI` document of the control API has each route with its methods, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Routes = BTreeMap<String, BTreeSet<String>>;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The routes of the router: each `.route("/path", get(x).post(y))`.
fn routes() -> Routes {
    let code = read("src/server/control/mod.rs");
    let mut found = Routes::new();
    for route in code.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').unwrap();
        let rest = rest.split("\n        .").next().unwrap();
        let words = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':' && c != '(');
        let calls = words.filter_map(|word| word.split_once('(')).map(|(method, _)| method);
        let methods = calls.filter(|call| METHODS.contains(call)).map(str::to_owned).collect();
        found.insert(path.to_owned(), methods);
    }
    found
}

fn documented() -> Routes {
    let document: serde_json::Value = serde_json::from_str(&read("src/server/control/openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths.iter().map(|(path, methods)| (path.clone(), methods.as_object().unwrap().keys().cloned().collect())).collect()
}

#[test]
fn document_has_the_routes_of_the_router() {
    let routes = routes();
    assert!(routes.len() > 20, "only {} routes were found", routes.len());
    assert!(routes.values().all(|methods| !methods.is_empty()), "{routes:?}");
    assert_eq!(routes["/control/v1/faults"].len(), 3);
    assert_eq!(documented(), routes);
}

#[test]
fn each_operation_has_a_name_of_its_own_and_its_errors() {
    let document: serde_json::Value = serde_json::from_str(&read("src/server/control/openapi.json")).unwrap();
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} is twice");
            for status in ["400", "401", "403", "503"] {
                assert!(operation["responses"].get(status).is_some(), "{method} {path} lacks {status}");
            }
            let has_body = operation.get("requestBody").is_some();
            assert_eq!(operation["responses"].get("413").is_some(), has_body, "{method} {path}");
        }
    }
}
