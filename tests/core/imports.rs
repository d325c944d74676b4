//! The import graph of the crate: each module, and what its `use` lines and paths name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One source file as a module.
pub struct Module {
    /// `core::session::device`; empty for the root.
    pub path: String,
    /// Relative to `src`.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// Its code without comments.
    pub code: String,
}

/// Modules by their path.
pub struct Crate {
    modules: BTreeMap<String, Module>,
    /// Of each module, the names that it exports from others, with their full paths.
    exports: BTreeMap<String, BTreeMap<String, String>>,
}

impl Crate {
    /// Reads `src`.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        collect(&root, &mut files);
        let modules: BTreeMap<_, _> = files.iter().map(|file| module(&root, file)).collect();
        let exports = modules.iter().map(|(path, module)| (path.clone(), exports_of(path, &module.code))).collect();
        Self { modules, exports }
    }

    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    /// The modules that this one names, itself and the root left out.
    pub fn imports_of(&self, module: &Module) -> BTreeSet<String> {
        let named = used(&module.path, &module.code, "use ").into_iter().chain(inline(&module.path, &module.code));
        let found = named.filter_map(|path| self.resolve(&path, 0));
        found.filter(|path| *path != module.path && !path.is_empty()).collect()
    }

    /// The module that defines what a path names; exports lead on to the module they come from.
    fn resolve(&self, path: &str, depth: usize) -> Option<String> {
        assert!(depth < 10, "exports in a circle: {path}");
        let parts: Vec<_> = path.split("::").collect();
        let known = (0..=parts.len()).rev().find(|&end| self.modules.contains_key(&parts[..end].join("::")))?;
        let module = parts[..known].join("::");
        let exported = parts.get(known).and_then(|name| self.exports[&module].get(*name));
        match exported {
            Some(target) => {
                let target = std::iter::once(target.as_str()).chain(parts[known + 1..].iter().copied());
                self.resolve(&target.collect::<Vec<_>>().join("::"), depth + 1)
            }
            None => Some(module),
        }
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module(root: &Path, file: &Path) -> (String, Module) {
    let relative = file.strip_prefix(root).unwrap();
    let mut parts: Vec<_> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    let text = std::fs::read_to_string(file).unwrap();
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let path = parts.join("::");
    // A visibility path is not an import.
    let code = code.join("\n").replace("pub(in crate::server)", "pub");
    (path.clone(), Module { path, file: relative.to_owned(), text, code })
}

/// The full paths behind each occurrence of `keyword` at the beginning of a statement.
fn used(module: &str, code: &str, keyword: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(keyword) {
        let begins = code[..at].rsplit('\n').next().unwrap().trim().is_empty();
        if let (true, Some(end)) = (begins, code[at..].find(';')) {
            let statement: String = code[at + keyword.len()..at + end].split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &statement, &mut paths);
        }
    }
    paths.iter().filter_map(|path| absolute(module, path)).collect()
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`. Another name (`as`) is kept behind the path.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{}", tree.trim()));
        return;
    };
    let inner = rest.rsplit_once('}').unwrap().0;
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, inner[start..at].trim(), paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&prefix, inner[start..].trim(), paths);
    }
}

/// A path of this crate without `crate`, `self` and `super`; `None` where it is of another crate.
fn absolute(module: &str, path: &str) -> Option<String> {
    let path = path.split(" as ").next().unwrap().trim().trim_end_matches("::self");
    let mut parts: Vec<_> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut rest: Vec<_> = path.split("::").collect();
    match rest.first() {
        Some(&"crate") => parts.clear(),
        Some(&"self") => {}
        Some(&"super") => {
            parts.pop();
        }
        _ => return None,
    }
    rest.remove(0);
    while rest.first() == Some(&"super") {
        parts.pop();
        rest.remove(0);
    }
    Some(parts.into_iter().chain(rest).collect::<Vec<_>>().join("::"))
}

/// Paths within the code that begin with `crate::` or `super::`.
fn inline(module: &str, code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("pub use ")) {
        for keyword in ["crate::", "super::"] {
            for (at, _) in line.match_indices(keyword) {
                let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                let whole = line[..at].chars().next_back().is_none_or(|c| !is_path(c));
                let path: String = line[at..].chars().take_while(|c| is_path(*c)).collect();
                if whole {
                    paths.extend(absolute(module, path.trim_end_matches(':')));
                }
            }
        }
    }
    paths
}

/// Re-exports of `pub use`: the local name and the full path.
fn exports_of(module: &str, code: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for keyword in ["pub use ", "pub(crate) use ", "pub(super) use "] {
        for (at, _) in code.match_indices(keyword) {
            let Some(end) = code[at..].find(';') else { continue };
            let statement: String = code[at + keyword.len()..at + end].split_whitespace().collect::<Vec<_>>().join(" ");
            let mut paths = Vec::new();
            expand("", &statement, &mut paths);
            for path in paths {
                let name = path.rsplit(" as ").next().unwrap().rsplit("::").next().unwrap().to_owned();
                // In a module's own exports a path may begin with the name of a child.
                let target = absolute(module, &path).unwrap_or_else(|| {
                    let path = path.split(" as ").next().unwrap();
                    if module.is_empty() { path.to_owned() } else { format!("{module}::{path}") }
                });
                exports.insert(name, target);
            }
        }
    }
    exports
}
