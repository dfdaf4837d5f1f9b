//! Generates `include/nucleus.h` and `include/nucleus.layout.json` from the Rust sources, and checks that the committed
//! files are up to date. `make header` rewrites them.
//!
//! cbindgen translates each declaration to C. This file then groups the declarations by topic, in the order of the
//! sources, turns integer constants into enumerators, and adds the initializer of each struct.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::layout::layout_json;

/// A topic of the header, with the Rust files that declare it. The comment at the top of the first file describes it.
struct Topic {
    name: &'static str,
    title: &'static str,
    sources: &'static [&'static str],
}

const TOPICS: [Topic; 10] = [
    Topic { name: "versions", title: "Versions", sources: &["types/versions.rs", "functions/versions.rs"] },
    Topic { name: "errors", title: "Errors", sources: &["types/errors.rs", "functions/errors.rs"] },
    Topic {
        name: "lifecycle",
        title: "Lifecycle",
        sources: &["types/lifecycle.rs", "functions/lifecycle.rs"],
    },
    Topic { name: "sampling", title: "Sampling", sources: &["types/sampling.rs", "functions/sampling.rs"] },
    Topic { name: "debug", title: "Debug arrays", sources: &["types/debug_arrays.rs"] },
    Topic {
        name: "device",
        title: "Logits on a device",
        sources: &["types/device.rs", "functions/device.rs"],
    },
    Topic {
        name: "embedding",
        title: "Programs to embed",
        sources: &["types/embedding.rs", "functions/embedding.rs"],
    },
    Topic {
        name: "compiling",
        title: "Compiling",
        sources: &["types/compiling.rs", "functions/compiling.rs"],
    },
    Topic {
        name: "information",
        title: "Information",
        sources: &["types/information.rs", "functions/information.rs"],
    },
    Topic { name: "log", title: "Log", sources: &["types/logging.rs", "functions/logging.rs"] },
];

/// A struct that is used before its own topic, and the topic that uses it.
const DECLARED_EARLY: (&str, &str) = ("nuc_debug_arrays", "sampling");

/// The functions whose status a program may ignore without a warning.
const IGNORABLE: [&str; 4] =
    ["nuc_sampler_destroy", "nuc_parameters_destroy", "nuc_call_destroy", "nuc_prewarming_destroy"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Constant,
    Type,
    Struct,
    Function,
}

/// A public item of a source file.
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The Rust type of a constant.
    pub(crate) constant_type: String,
    /// The C declaration with its comment, from cbindgen.
    pub(crate) c: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> String {
    std::fs::read_to_string(root().join("src/abi").join(name)).unwrap()
}

fn config() -> cbindgen::Config {
    cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml")
}

/// The kind, the name and the type (of a constant) of every public item of a file, in order.
fn public_items(text: &str) -> Vec<(Kind, String, String)> {
    const STARTS: [(&str, Kind); 5] = [
        ("pub const ", Kind::Constant),
        ("pub type ", Kind::Type),
        ("pub struct ", Kind::Struct),
        ("pub extern \"C\" fn ", Kind::Function),
        ("pub unsafe extern \"C\" fn ", Kind::Function),
    ];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let item = |line: &str| {
        let (kind, rest) =
            STARTS.iter().find_map(|(start, kind)| Some((*kind, line.strip_prefix(start)?)))?;
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let after = rest[end..].trim_start_matches(": ");
        Some((kind, rest[..end].to_owned(), after.split(" =").next().unwrap().to_owned()))
    };
    text.lines().filter_map(item).collect()
}

/// The C declarations of the items, by name.
fn declarations(names: Vec<String>) -> BTreeMap<String, String> {
    let config = cbindgen::Config {
        header: None,
        after_includes: None,
        export: cbindgen::ExportConfig { include: names, ..config().export },
        ..config()
    };
    let files = TOPICS.iter().flat_map(|topic| topic.sources);
    let builder = files.fold(cbindgen::Builder::new().with_config(config), |builder, file| {
        builder.with_src(root().join("src/abi").join(file))
    });
    let mut text = Vec::new();
    builder.generate().expect("the ABI sources parse").write(&mut text);
    let text = tidied(&String::from_utf8(text).unwrap());
    text.split("\n\n").map(str::trim).filter(|c| !c.is_empty()).map(|c| (c_name(c), c.to_owned())).collect()
}

/// The longest line of a comment.
const LONGEST_LINE: usize = 120;

/// Adapts cbindgen's text to C programmers.
fn tidied(text: &str) -> String {
    // Rustdoc lists the obligations of the caller under the heading "Safety".
    let text = text.replace("* # Safety\n", "* The caller promises:\n");
    // Every struct has a typedef.
    let text = text.replace("struct nuc_", "nuc_").replace("typedef nuc_", "typedef struct nuc_");
    // Put a comment of one line on one line.
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_short = line.trim() == "*/"
            && lines.len() > 1
            && lines[lines.len() - 2].trim() == "/**"
            && lines[lines.len() - 1].len() < LONGEST_LINE - " */".len();
        match is_short {
            true => {
                let words = lines.pop().unwrap().trim_start_matches([' ', '*']).to_owned();
                lines.last_mut().unwrap().push_str(&format!(" {words} */"));
            }
            false => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// The name that a C declaration declares.
fn c_name(declaration: &str) -> String {
    let code = declaration.rsplit("*/").next().unwrap().trim();
    let code = if declaration.contains("typedef struct") {
        &declaration[declaration.find("typedef struct").unwrap()..]
    } else {
        code
    };
    let words = || code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let name = match code {
        _ if code.starts_with("#define") => words().nth(1),
        _ if code.starts_with("typedef struct") => words().nth(2),
        _ if code.starts_with("typedef void") => words().nth(2),
        _ if code.starts_with("typedef") => words().next_back(),
        _ => code.split('(').next().unwrap().split([' ', '*']).next_back(),
    };
    name.unwrap_or_else(|| panic!("no name in {declaration}")).to_owned()
}

/// The items of every topic, in order.
pub(crate) fn topics() -> Vec<(&'static str, Vec<Item>)> {
    let listed: Vec<_> = TOPICS
        .iter()
        .map(|topic| {
            (
                topic.name,
                topic.sources.iter().flat_map(|file| public_items(&source(file))).collect::<Vec<_>>(),
            )
        })
        .collect();
    let names = listed.iter().flat_map(|(_, items)| items.iter().map(|(_, name, _)| name.clone())).collect();
    let mut declared = declarations(names);
    let topics = listed
        .into_iter()
        .map(|(topic, items)| {
            let items = items.into_iter().map(|(kind, name, constant_type)| {
                let c = declared.remove(&name).unwrap_or_else(|| panic!("cbindgen did not declare {name}"));
                Item { kind, name, constant_type, c }
            });
            (topic, items.collect())
        })
        .collect();
    assert!(declared.is_empty(), "declarations that belong to no topic: {declared:?}");
    topics
}

/// Whether an item is a struct whose fields C programs access.
pub(crate) fn has_fields(item: &Item) -> bool {
    item.kind == Kind::Struct && !fields(item).is_empty()
}

/// The fields of a struct: name, C type, and whether it is an array. Empty for an opaque struct.
pub(crate) fn fields(item: &Item) -> Vec<(String, String, bool)> {
    let lines = item.c.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(';'));
    lines
        .map(|field| {
            let (field, length) = field.split_once('[').map_or((field, None), |(a, b)| (a, Some(b)));
            let at = field.rfind([' ', '*']).unwrap() + 1;
            let length = length.map(|length| format!("[{length}"));
            let c_type = format!("{}{}", field[..at].trim_end(), length.as_deref().unwrap_or_default());
            (field[at..].to_owned(), c_type, length.is_some())
        })
        .collect()
}

/// Moves the members of an enumeration into a C `enum`. The type itself is an integer.
fn enumeration(name: &str, members: &[&Item]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|member| {
            let (comment, define) = member.c.split_once("#define ").unwrap();
            let (name, value) = define.split_once(' ').unwrap();
            let comment: String = comment.lines().map(|line| format!("    {line}\n")).collect();
            format!("{comment}    {name} = {value}")
        })
        .collect();
    format!("/** The values of {name}. */\nenum {{\n{}\n}};\n\n", members.join(",\n"))
}

/// The name of the macro that initializes a struct.
pub(crate) fn init_name(name: &str) -> String {
    format!("{}_INIT", name.to_uppercase())
}

fn init_macro(item: &Item) -> String {
    let value = |(name, c_type, is_array): &(String, String, bool)| match c_type.as_str() {
        "size_t" if name == "struct_size" => format!("sizeof({})", item.name),
        _ if *is_array => "{0}".to_owned(),
        _ if c_type.ends_with('*') => "NULL".to_owned(),
        "float" => "0.0f".to_owned(),
        _ => "0".to_owned(),
    };
    let values: Vec<String> = fields(item).iter().map(value).collect();
    format!(
        "/** Initializes a {}. */\n#define {} \\\n    {{{}}}\n\n",
        item.name,
        init_name(&item.name),
        values.join(", ")
    )
}

/// The text of one item, and of the constants that belong to it.
fn item_text(item: &Item, topic: &[Item]) -> String {
    match item.kind {
        Kind::Type => {
            let members: Vec<&Item> =
                topic.iter().filter(|member| member.constant_type == item.name).collect();
            let members = if members.is_empty() { String::new() } else { enumeration(&item.name, &members) };
            format!("{}\n\n{members}", item.c)
        }
        // An unsigned bit or number.
        Kind::Constant if item.constant_type == "u32" => format!("{}u\n\n", item.c),
        Kind::Constant => String::new(),
        Kind::Struct if !has_fields(item) => format!("{}\n\n", item.c),
        Kind::Struct if item.name == DECLARED_EARLY.0 => {
            let c =
                item.c.replace("typedef struct", "struct").replace(&format!("\n}} {};", item.name), "\n};");
            format!("{c}\n\n{}", init_macro(item))
        }
        Kind::Struct => format!("{}\n\n{}", item.c, init_macro(item)),
        Kind::Function => {
            let (comment, code) = item.c.split_at(item.c.rfind("*/\n").unwrap() + 3);
            let is_checked = code.starts_with("nuc_status ") && !IGNORABLE.contains(&item.name.as_str());
            let attributes = if is_checked { "NUC_NODISCARD NUC_API\n" } else { "NUC_API " };
            // Align the continuation lines of a declaration with its first argument.
            let code = match is_checked {
                true => code.to_owned(),
                false => code.replace("\n ", &format!("\n {}", " ".repeat(attributes.len()))),
            };
            format!("{comment}{attributes}{code}\n\n")
        }
    }
}

/// The versions of the library, from `Cargo.toml`.
fn version_macros() -> String {
    format!(
        "/** The version of the library that this header belongs to. */\n\
         #define NUC_VERSION_MAJOR {}\n#define NUC_VERSION_MINOR {}\n#define NUC_VERSION_PATCH {}\n\n\
         /** A version as a number that can be compared. Minor and patch are below 1000. */\n\
         #define NUC_MAKE_VERSION(major, minor, patch) ((major) * 1000000u + (minor) * 1000u + (patch))\n\n\
         /** The version of this header as a number. */\n\
         #define NUC_VERSION NUC_MAKE_VERSION(NUC_VERSION_MAJOR, NUC_VERSION_MINOR, NUC_VERSION_PATCH)\n\n",
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    )
}

/// The beginning of a topic: a Doxygen group. The text is the comment at the top of the topic's first file.
fn topic_start(topic: &Topic) -> String {
    let text = source(topic.sources[0]);
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let text: String = lines.map(|line| format!(" *{line}\n")).collect();
    format!("/**\n * @defgroup nuc_{} {}\n *\n{text} * @{{\n */\n\n", topic.name, topic.title)
}

fn header() -> String {
    let config = config();
    let mut text = config.header.unwrap().trim_start().to_owned();
    text += "\n\n#ifndef NUCLEUS_H\n#define NUCLEUS_H\n\n";
    text += "/* Generated from the Rust sources by `make header`. Do not edit. */\n\n";
    text += "#include <stddef.h>\n#include <stdint.h>\n";
    text += &config.after_includes.unwrap();
    text += "\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n";
    for (topic, (_, items)) in TOPICS.iter().zip(topics()) {
        text += &topic_start(topic);
        if topic.name == "versions" {
            text += &version_macros();
        }
        if topic.name == DECLARED_EARLY.1 {
            text += &format!("typedef struct {} {0};\n\n", DECLARED_EARLY.0);
        }
        items.iter().for_each(|item| text += &item_text(item, &items));
        text += "/** @} */\n\n";
    }
    text + "#ifdef __cplusplus\n}\n#endif\n\n#endif /* NUCLEUS_H */\n"
}

/// Compares a generated file with the committed one. With NUCLEUS_UPDATE_HEADER in the environment, writes it first.
fn check_committed(name: &str, fresh: &str) {
    let path = root().join("include").join(name);
    if std::env::var_os("NUCLEUS_UPDATE_HEADER").is_some() {
        std::fs::write(&path, fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "include/{name} is out of date: run `make header` and commit the result");
}

#[test]
fn header_is_up_to_date() {
    let fresh = header();
    let odd: BTreeSet<char> = fresh.chars().filter(|c| !c.is_ascii()).collect();
    assert!(odd.is_empty(), "a header of ASCII characters compiles everywhere; found {odd:?}");
    let long: Vec<&str> = fresh.lines().filter(|line| line.len() > LONGEST_LINE).collect();
    assert!(long.is_empty(), "longer than {LONGEST_LINE} characters: {long:#?}");
    check_committed("nucleus.h", &fresh);
}

#[test]
fn layout_is_up_to_date() {
    check_committed("nucleus.layout.json", &layout_json());
}

/// Compiles a program in every language, with both compilers.
fn compiles_everywhere(name: &str, program: &str) {
    const LANGUAGES: [(&str, &str, [&str; 2]); 8] = [
        ("c89", "c", ["gcc", "clang"]),
        ("c99", "c", ["gcc", "clang"]),
        ("c11", "c", ["gcc", "clang"]),
        ("c17", "c", ["gcc", "clang"]),
        ("c++11", "cpp", ["g++", "clang++"]),
        ("c++14", "cpp", ["g++", "clang++"]),
        ("c++17", "cpp", ["g++", "clang++"]),
        ("c++20", "cpp", ["g++", "clang++"]),
    ];
    let dir = std::env::temp_dir().join(format!("nucleus-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (standard, extension, compilers) in LANGUAGES {
        let source = dir.join(format!("{name}.{extension}"));
        std::fs::write(&source, program).unwrap();
        compilers.iter().for_each(|compiler| compile(compiler, standard, &source));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn compile(compiler: &str, standard: &str, source: &Path) {
    let output = compiler_output(compiler, standard, source);
    assert!(
        output.status.success(),
        "{compiler} -std={standard}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn compiler_output(compiler: &str, standard: &str, source: &Path) -> Output {
    Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"])
        // gcc finds ignored results only when it generates code.
        .args(["-S", "-o", "/dev/null", "-I"])
        .arg(root().join("include"))
        .arg(source)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {compiler}: {error}"))
}

/// The compiler warns if a status is ignored, unless the program turns the warning off.
#[test]
fn ignored_statuses_are_warnings() {
    let ignores =
        "#include <nucleus.h>\nint main(void) {\n    nuc_prewarm(NULL, NULL, NULL);\n    return 0;\n}\n";
    let allowed = format!("#define NUC_NODISCARD\n{ignores}");
    let dir = std::env::temp_dir().join(format!("nucleus-nodiscard-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let languages =
        [("gcc", "c99", "c"), ("clang", "c99", "c"), ("g++", "c++17", "cpp"), ("clang++", "c++17", "cpp")];
    for (compiler, standard, extension) in languages {
        let source = dir.join(format!("ignores.{extension}"));
        std::fs::write(&source, ignores).unwrap();
        let output = compiler_output(compiler, standard, &source);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("nuc_prewarm"), "{compiler}: {text}");
        std::fs::write(&source, &allowed).unwrap();
        compile(compiler, standard, &source);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The header, its initializers and its attributes compile without a warning in every language and compiler.
#[test]
fn header_compiles_in_every_language() {
    let topics = topics();
    let structs = topics.iter().flat_map(|(_, items)| items).filter(|item| has_fields(item));
    let variables: String = structs
        .map(|item| {
            format!(
                "    {{ {0} value = {1}; result += (int)sizeof value; }}\n",
                item.name,
                init_name(&item.name)
            )
        })
        .collect();
    let program = format!(
        "#include <nucleus.h>\n#include <nucleus.h>\n\nint main(void) {{\n    int result = 0;\n{variables}    \
         nuc_sampler_destroy(NULL, NULL);\n    return result + (int)nuc_abi_version();\n}}\n"
    );
    compiles_everywhere("header", &program);
}

/// The example in the header's manual compiles.
#[test]
fn the_example_in_the_header_compiles() {
    let header = std::fs::read_to_string(root().join("include/nucleus.h")).unwrap();
    let start = header.find("EXAMPLE").unwrap();
    let end = header.find("CONVENTIONS").unwrap();
    let lines = header[start..end].lines().skip(1).map(|line| line.trim_start_matches(" *").trim_start());
    let program: String = lines.map(|line| format!("{line}\n")).collect();
    compiles_everywhere("example", &program.replace("*\n", ""));
}

/// The example in the README compiles.
#[test]
fn the_example_in_the_readme_compiles() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let program = readme.split("```c\n").nth(1).expect("an example").split("```").next().unwrap();
    compiles_everywhere("readme", program);
}
