//! `include/nucleus.h` is up to date with the Rust sources, and compiles as C99 and C++17 without warnings.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root().join("src/abi/types.rs"))
        .with_src(root().join("src/abi/mod.rs"))
        .generate()
        .expect("the ABI sources parse");
    let mut text = Vec::new();
    bindings.write(&mut text);
    // "Safety" is rustdoc's heading for the obligations of the caller. C programmers do not know this convention.
    String::from_utf8(text).unwrap().replace("// # Safety\n", "// The caller promises:\n")
}

#[test]
fn header_is_up_to_date() {
    let path = root().join("include/nucleus.h");
    let fresh = generated();
    if std::env::var_os("NUCLEUS_UPDATE_HEADER").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "include/nucleus.h is out of date: run `make header` and commit the result");
}

#[test]
fn header_compiles_as_c99_and_cpp17() {
    let dir = std::env::temp_dir().join(format!("nucleus-header-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (compiler, standard, name) in [("cc", "c99", "header.c"), ("c++", "c++17", "header.cpp")] {
        let source = dir.join(name);
        std::fs::write(
            &source,
            "#include <nucleus.h>\nint main(void) { return (int)nuc_abi_version() - 1; }\n",
        )
        .unwrap();
        compile(compiler, standard, &source);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The example in the header's manual compiles.
#[test]
fn the_example_in_the_header_compiles() {
    let header = std::fs::read_to_string(root().join("include/nucleus.h")).unwrap();
    let start = header.find("EXAMPLE").unwrap();
    let end = header.find("CONVENTIONS").unwrap();
    let lines = header[start..end].lines().skip(1).map(|line| line.trim_start_matches(" *").trim_start());
    let program: String = lines.map(|line| format!("{line}\n")).collect();
    let dir = std::env::temp_dir().join(format!("nucleus-example-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let source = dir.join("example.c");
    std::fs::write(&source, program.trim_end_matches([' ', '*', '\n'])).unwrap();
    compile("cc", "c99", &source);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn compile(compiler: &str, standard: &str, source: &Path) {
    let output = Command::new(compiler)
        .args([
            &format!("-std={standard}"),
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-fsyntax-only",
            "-I",
        ])
        .arg(root().join("include"))
        .arg(source)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {compiler}: {error}"));
    assert!(output.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&output.stderr));
}
