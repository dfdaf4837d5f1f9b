//! What loading says of files that are no PJRT plugins, or none that can be used. The libraries are built here, from
//! a few lines of C each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nucleus::pjrt::{ApiVersion, Client, Code, ErrorKind, Plugin};

/// The head of `PJRT_Api`, and a table whose entries are numbered as in the header: 0 Error_Destroy, 1 Error_Message,
/// 2 Error_GetCode, 3 Plugin_Initialize, 8 Event_Await, 10 Client_Create.
const HEADER: &str = r#"
#include <stddef.h>
#include <string.h>
struct api { size_t size; void *ext; size_t version_size; void *version_ext; int major, minor; void *functions[150]; };
struct message { size_t size; void *ext; const void *error; const char *text; size_t text_size; };
struct code { size_t size; void *ext; const void *error; int code; };
static const char *the_text = "";
static int the_code = 0;
static void destroy(void *args) {}
static void message(struct message *args) { args->text = the_text; args->text_size = strlen(the_text); }
static void *code(struct code *args) { args->code = the_code; return 0; }
static void *fine(void *args) { return 0; }
static void *fail(const char *text, int code) { the_text = text; the_code = code; return &the_code; }
static struct api api = {sizeof api, 0, sizeof(size_t) * 2 + sizeof(int) * 2, 0, 0, 115,
                         {destroy, message, code, fine, 0, 0, 0, 0, fine}};
"#;

/// Builds a shared library of that name.
fn build(name: &str, source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&c, format!("{HEADER}{source}")).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&c).status();
    assert!(status.expect("cc runs").success(), "cc failed on {}", c.display());
    library
}

/// A library with the usual table, changed by the statements in `changes`.
fn build_plugin(name: &str, functions: &str, changes: &str) -> PathBuf {
    build(name, &format!("{functions}\nvoid *GetPjrtApi(void) {{ {changes} return &api; }}"))
}

/// The message for a file that does not load.
fn refused(path: &Path, kind: ErrorKind) -> String {
    let error = Plugin::load(path).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    let message = error.to_string();
    println!("{message}");
    assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
    message
}

#[test]
fn a_missing_file() {
    let message = refused(Path::new("/nonexistent/plugin.so"), ErrorKind::NotFound);
    assert!(message.contains("no PJRT plugin at /nonexistent/plugin.so: No such file"), "{message}");
    let message = refused(Path::new(env!("CARGO_TARGET_TMPDIR")), ErrorKind::NotFound);
    assert!(message.contains("folder"), "{message}");
}

#[test]
fn a_file_that_is_no_library() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("text.so");
    std::fs::write(&path, "This is not the plugin you are looking for.").unwrap();
    let message = refused(&path, ErrorKind::NotAPlugin);
    assert!(message.contains("cannot load") && message.contains("file too short"), "{message}");

    std::fs::write(&path, "This is not a plugin. ".repeat(100)).unwrap();
    let message = refused(&path, ErrorKind::NotAPlugin);
    assert!(message.contains("invalid ELF header"), "{message}");
}

#[test]
fn a_library_that_lacks_something() {
    let path =
        build("unresolved", "extern int no_such_symbol(void); int call(void) { return no_such_symbol(); }");
    let message = refused(&path, ErrorKind::NotAPlugin);
    assert!(message.contains("no_such_symbol"), "{message}");
}

#[test]
fn a_library_without_the_entry_point() {
    let message = refused(&build("no_entry", "int answer = 42;"), ErrorKind::NotAPlugin);
    assert!(message.contains("does not export GetPjrtApi"), "{message}");
}

#[test]
fn an_entry_point_that_returns_nothing_of_use() {
    let message =
        refused(&build("null_table", "void *GetPjrtApi(void) { return 0; }"), ErrorKind::NotAPlugin);
    assert!(message.contains("GetPjrtApi returned null"), "{message}");
    let message = refused(&build_plugin("short_table", "", "api.size = 16;"), ErrorKind::NotAPlugin);
    assert!(message.contains("16 bytes"), "{message}");
}

#[test]
fn a_plugin_that_is_too_old() {
    let path = build_plugin("too_old", "", "api.minor = 10; api.size = 200;");
    let message = refused(&path, ErrorKind::ApiVersion);
    assert!(
        message.contains("PJRT API 0.10, too old") && message.contains("needs 0.54 or newer"),
        "{message}"
    );
}

#[test]
fn a_plugin_that_is_too_new() {
    let message =
        refused(&build_plugin("too_new", "", "api.major = 1; api.minor = 0;"), ErrorKind::ApiVersion);
    assert!(message.contains("PJRT API 1.0, too new"), "{message}");
}

#[test]
fn a_newer_minor_with_a_longer_table_is_fine() {
    let plugin = Plugin::load(&build_plugin("newer", "", "api.minor = 999;")).unwrap();
    assert_eq!(plugin.version(), ApiVersion { major: 0, minor: 999 });
}

#[test]
fn a_table_without_functions_that_are_needed() {
    // The table ends in the middle of Event_Await.
    let ends = "api.size = offsetof(struct api, functions) + 8 * sizeof(void *) + 4;";
    let message = refused(&build_plugin("no_await", "", ends), ErrorKind::ApiVersion);
    assert!(message.contains("does not offer PJRT_Event_Await"), "{message}");

    let plugin = Plugin::load(&build_plugin("no_create", "", "")).unwrap();
    let error = Client::create(plugin.clone(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ApiVersion);
    assert!(error.to_string().contains("does not offer PJRT_Client_Create"), "{error}");
    assert_eq!(plugin.attributes(), Ok(vec![]));
}

#[test]
fn a_client_that_is_null() {
    let plugin = Plugin::load(&build_plugin("null_client", "", "api.functions[10] = fine;")).unwrap();
    let error = Client::create(plugin, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misbehaved);
    assert!(error.to_string().contains("PJRT_Client_Create reported success"), "{error}");
}

#[test]
fn a_plugin_that_will_not_initialise_at_first() {
    let locked = r#"
        static int calls = 0;
        static void *locked(void *args) { return calls++ ? 0 : fail("libtpu multi-process lockfile", 10); }"#;
    let path = build_plugin("locked", locked, "api.functions[3] = locked;");
    let message = refused(&path, ErrorKind::Init);
    assert!(message.contains("libtpu multi-process lockfile (Aborted)"), "{message}");
    assert!(message.contains("ALLOW_MULTIPLE_LIBTPU_LOAD=1"), "{message}");
    // The failure is not remembered: whoever held the lock may be gone.
    Plugin::load(&path).unwrap();
}

#[test]
fn one_initialisation_whoever_asks_by_whatever_name() {
    let once = r#"
        static int calls = 0;
        static void *once(void *args) { return calls++ ? fail("again", 6) : 0; }"#;
    let path = build_plugin("once", once, "api.functions[3] = once;");
    let link = path.with_file_name("once_link.so");
    let hard_link = path.with_file_name("once_hard_link.so");
    let _ = (std::fs::remove_file(&link), std::fs::remove_file(&hard_link));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    std::fs::hard_link(&path, &hard_link).unwrap();
    let plugins: Vec<Arc<Plugin>> = std::thread::scope(|scope| {
        let threads: Vec<_> = [&path, &link, &hard_link, &path, &link, &hard_link]
            .map(|path| scope.spawn(|| Plugin::load(path).unwrap()))
            .into_iter()
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(plugins.iter().all(|plugin| Arc::ptr_eq(plugin, &plugins[0])));
}

#[test]
fn unknown_codes_and_broken_text_survive() {
    let odd = r#"static void *odd(void *args) { return fail("\xff\xfe odd", 77); }"#;
    let plugin = Plugin::load(&build_plugin("odd", odd, "api.functions[10] = odd;")).unwrap();
    let error = Client::create(plugin, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::Other(77) });
    assert!(error.to_string().contains(" odd (code 77)"), "{error}");
}
