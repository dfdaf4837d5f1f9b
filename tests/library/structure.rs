//! Tests of the source structure: which files import from which files.
//!
//! `docs/architecture.md` draws the modules and lists their imports. These tests check the list and reject circular
//! imports. They also check the width of comments and the pipelines of shell scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files that own each other's objects: a client creates buffers and executables, and both keep their client alive.
const MUTUAL: [&str; 3] = ["pjrt::buffer", "pjrt::client", "pjrt::executable"];

/// One source file: its module path below `crate`, the items that it re-exports from other files, and its imports.
struct Source {
    module: String,
    /// The key is an item. The value is the path from which the file re-exports the item.
    exports: BTreeMap<String, Vec<String>>,
    /// Absolute paths below `crate`.
    imports: BTreeSet<Vec<String>>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_with(extension: &str, directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with(extension, &path, found);
        } else if path.extension().is_some_and(|ending| ending == extension) {
            found.push(path);
        }
    }
}

/// Clippy and rustfmt do not check the length of comments, so this test does.
#[test]
fn comments_fit_120_columns() {
    let mut files = Vec::new();
    for directory in ["src", "kernels", "cli", "tests", "benches", "examples"] {
        files_with("rs", &root().join(directory), &mut files);
    }
    let mut long = Vec::new();
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line.trim_start().starts_with("//") && line.chars().count() > 120 {
                long.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "these comments have more than 120 columns: {long:#?}");
}

/// `grep -q` ends at the first match. If the command before it in the pipeline writes more, SIGPIPE ends that command.
/// With `pipefail`, the pipeline then fails although `grep` has found the text. The scripts use
/// `grep -q TEXT <<<"$(command)"` instead.
#[test]
fn scripts_do_not_pipe_into_grep_q() {
    let mut files = vec![root().join(".ci/run")];
    for directory in ["scripts", "tests", "bindings"] {
        files_with("sh", &root().join(directory), &mut files);
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        if !text.contains("pipefail") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.replace("||", "");
            let mut commands = line.split('|').skip(1).map(|command| command.split_whitespace());
            let is_quiet =
                |word: &str| word.starts_with('-') && !word.starts_with("--") && word.contains('q');
            if commands.any(|mut words| words.next() == Some("grep") && words.next().is_some_and(is_quiet)) {
                found.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "these lines pipe into grep -q: {found:#?}");
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root()).unwrap().with_extension("");
    let mut parts: Vec<&str> = relative.iter().map(|part| part.to_str().unwrap()).collect();
    if parts[0] == "src" {
        parts.remove(0);
    }
    if matches!(parts.last(), Some(&"mod" | &"lib")) {
        parts.pop();
    }
    parts.join("::")
}

/// Returns the code of a file without comments and test modules. Test modules may import any file.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let text = text.replace("#[cfg(test)]\nmod ", "mod ");
    let code = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    // `pub(in crate::a)` names a module but does not import it.
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |code, part| code + "pub" + part.split_once(')').unwrap().1)
}

/// Expands `a::{b, c::{d, e as f}}` into paths.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut start: Vec<String> = prefix.to_vec();
        start.extend(segments(&tree[..open]));
        let inner = &tree[open + 1..tree.rfind('}').unwrap()];
        let (mut depth, mut from) = (0, 0);
        for (at, byte) in inner.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b',' if depth == 0 => {
                    expand(&inner[from..at], &start, paths);
                    from = at + 1;
                }
                _ => {}
            }
        }
        if !inner[from..].trim().is_empty() {
            expand(&inner[from..], &start, paths);
        }
        return;
    }
    let path = tree.split(" as ").next().unwrap();
    let mut whole: Vec<String> = prefix.to_vec();
    whole.extend(segments(path));
    paths.push(whole);
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Resolves a path in a module to a path below `crate`. Returns `None` for other crates.
fn absolute(module: &str, path: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
    let mut base = segments(module);
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" | "$crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        first if children.contains(first) => {}
        _ => return None,
    }
    base.extend(rest.iter().filter(|part| *part != "self").cloned());
    Some(base)
}

fn sources() -> BTreeMap<String, Source> {
    let mut files = Vec::new();
    for directory in ["src", "kernels"] {
        files_with("rs", &root().join(directory), &mut files);
    }
    let modules: BTreeSet<String> = files.iter().map(|path| module_of(path)).collect();
    let mut found = BTreeMap::new();
    for path in &files {
        let module = module_of(path);
        let code = code_of(&fs::read_to_string(path).unwrap());
        let below = if module.is_empty() { String::new() } else { format!("{module}::") };
        let children: BTreeSet<String> = modules
            .iter()
            .filter_map(|other| other.strip_prefix(&below))
            .filter(|rest| !rest.is_empty() && !rest.contains("::"))
            .map(str::to_owned)
            .collect();
        let (mut exports, mut imports) = (BTreeMap::new(), BTreeSet::new());
        let mut rest = code.as_str();
        while let Some(at) = rest.find("use ") {
            let line_start = rest[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let before = rest[line_start..at].trim();
            let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
            // Other words can also end in `use`, for example the name of a type. Such a line is not an import.
            let is_public = before == "pub" || (before.starts_with("pub(") && before.ends_with(')'));
            if before.is_empty() || is_public {
                let mut paths = Vec::new();
                expand(&rest[at + 4..end], &[], &mut paths);
                for path in paths {
                    let Some(target) = absolute(&module, &path, &children) else { continue };
                    if is_public {
                        exports.insert(target.last().cloned().unwrap_or_default(), target.clone());
                    }
                    imports.insert(target);
                }
            }
            rest = &rest[end..];
        }
        // Paths in the code, for example `crate::kernels::emit(…)` or `arrays::write(…)`.
        for (at, _) in code.match_indices("::") {
            let word = |text: &str| {
                let start = text
                    .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                    .map_or(0, |at| at + 1);
                text[start..].to_owned()
            };
            let from = word(&code[..at]);
            let tail: String =
                code[at + 2..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let mut path = segments(&from);
            // Skips a path that is only the beginning of a longer path, or of a list in a `use`.
            if tail.is_empty() || code[at + 2 + tail.len()..].starts_with("::") {
                continue;
            }
            path.push(tail);
            if let Some(target) = absolute(&module, &path, &children) {
                imports.insert(target);
            }
        }
        found.insert(module.clone(), Source { module, exports, imports });
    }
    found
}

/// Returns the module that defines the item at a path. Follows re-exports.
fn definer(sources: &BTreeMap<String, Source>, path: &[String], depth: usize) -> Option<String> {
    assert!(depth < 10, "re-exports of {path:?} lead round in a circle");
    let length = (0..=path.len()).rev().find(|&length| sources.contains_key(&path[..length].join("::")))?;
    let module = path[..length].join("::");
    let item = path.get(length);
    match item.and_then(|item| sources[&module].exports.get(item)) {
        Some(target) if target.as_slice() != path => definer(sources, target, depth + 1),
        _ => Some(module),
    }
}

/// For each file: the files that it imports from. A file that only declares or re-exports a module does not import it.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    let mut edges = BTreeMap::new();
    for source in sources.values() {
        let targets = source
            .imports
            .iter()
            .filter(|path| !source.exports.values().any(|exported| exported == *path))
            .filter_map(|path| definer(&sources, path, 0))
            .filter(|target| *target != source.module && !target.is_empty())
            .collect();
        edges.insert(source.module.clone(), targets);
    }
    edges
}

/// Returns all files that can be reached from `start`. Ignores the imports between files that own each other's objects.
fn reachable(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = vec![start.to_owned()];
    while let Some(at) = open.pop() {
        for target in &edges[&at] {
            let mutual = MUTUAL.contains(&at.as_str()) && MUTUAL.contains(&target.as_str());
            if !mutual && seen.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    seen
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let edges = imports();
    let mut circles = Vec::new();
    for (module, targets) in &edges {
        for target in targets {
            let mutual = MUTUAL.contains(&module.as_str()) && MUTUAL.contains(&target.as_str());
            if !mutual && reachable(&edges, target).contains(module) {
                circles.push(format!("{module} -> {target}"));
            }
        }
    }
    assert!(circles.is_empty(), "imports that are part of a circle:\n{}", circles.join("\n"));
}

/// Checks the list in `docs/architecture.md`: one line `module: imports` for each top-level module.
#[test]
fn the_architecture_page_lists_the_imports() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // The crate's root only declares modules.
    let edges = imports().into_iter().filter(|(module, _)| !module.is_empty());
    for (module, targets) in edges {
        let top = |module: &str| {
            let parts = segments(module);
            let depth = if parts[0] == "backend" && parts.len() > 1 { 2 } else { 1 };
            parts[..depth].join("/")
        };
        let here = top(&module);
        let entry = found.entry(here.clone()).or_default();
        entry.extend(targets.iter().map(|target| top(target)).filter(|target| *target != here));
    }
    let list: String = found
        .iter()
        .map(|(module, targets)| {
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            format!(
                "{module}: {}\n",
                if targets.is_empty() { "nothing".to_owned() } else { targets.join(", ") }
            )
        })
        .collect();
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    assert!(page.contains(&list), "docs/architecture.md must hold this list:\n{list}");
}
