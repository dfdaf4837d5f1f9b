//! Tests of loading files that are not usable PJRT plugins. Each test builds a small shared library from C code.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use nucleus::pjrt::{ApiVersion, Client, Code, ErrorKind, Plugin, Result};

/// C code: the first fields of `PJRT_Api` and a table of functions. The numbers of the entries are those of the PJRT
/// header: 0 Error_Destroy, 1 Error_Message, 2 Error_GetCode, 3 Plugin_Initialize, 8 Event_Await, 10 Client_Create.
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

/// The time after which a test reports a hang.
const PATIENCE: Duration = Duration::from_secs(30);

fn directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Builds a shared library with the given name.
fn build(name: &str, source: &str) -> PathBuf {
    let (c, library) = (directory().join(format!("{name}.c")), directory().join(format!("{name}.so")));
    fs::write(&c, format!("{HEADER}{source}")).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&c).status();
    assert!(status.expect("cc runs").success(), "cc failed on {}", c.display());
    library
}

/// Builds a plugin with the usual table, changed by the C statements in `changes`.
fn build_plugin(name: &str, functions: &str, changes: &str) -> PathBuf {
    build(name, &format!("{functions}\nvoid *GetPjrtApi(void) {{ {changes} return &api; }}"))
}

/// Checks that a file does not load, and returns the error message.
fn refused(path: &Path, kind: ErrorKind) -> String {
    let error = load_in_time(path).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    let message = error.to_string();
    println!("{message}");
    assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
    message
}

/// Loads a plugin. Panics if loading hangs.
fn load_in_time(path: &Path) -> Result<Arc<Plugin>> {
    let (path, shown) = (path.to_owned(), path.to_owned());
    in_time(&format!("loading {}", shown.display()), move || Plugin::load(&path))
}

/// Runs `work` on another thread. Panics if it hangs.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let worker = thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
    }
}

#[test]
fn a_missing_file() {
    let message = refused(Path::new("/nonexistent/plugin.so"), ErrorKind::NotFound);
    assert!(message.contains("no PJRT plugin at /nonexistent/plugin.so: No such file"), "{message}");
}

#[test]
fn a_path_that_is_not_a_regular_file() {
    let message = refused(directory(), ErrorKind::NotFound);
    assert!(message.contains("a directory"), "{message}");

    let fifo = directory().join("fifo.so");
    let _ = fs::remove_file(&fifo);
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let message = refused(&fifo, ErrorKind::NotFound);
    assert!(message.contains("a FIFO"), "{message}");

    let socket = directory().join("socket.so");
    let _ = fs::remove_file(&socket);
    let _listener = UnixListener::bind(&socket).unwrap();
    let message = refused(&socket, ErrorKind::NotFound);
    assert!(message.contains("a socket"), "{message}");

    let message = refused(Path::new("/dev/zero"), ErrorKind::NotFound);
    assert!(message.contains("a device"), "{message}");
}

#[test]
fn a_file_that_is_not_a_library() {
    let path = directory().join("text.so");
    for text in ["".to_owned(), "This is not a plugin.".to_owned(), "This is not a plugin. ".repeat(100)] {
        fs::write(&path, text).unwrap();
        let message = refused(&path, ErrorKind::NotAPlugin);
        assert!(message.contains("cannot load") && message.contains("ELF"), "{message}");
    }
}

/// The dynamic loader maps a truncated file without an error. An access to the missing part would end the process with
/// SIGBUS.
#[test]
fn a_plugin_file_that_was_cut_short() {
    let path = build_plugin("whole", "static char much[50000] = {1};", "api.ext = much; api.ext = 0;");
    let whole = fs::read(&path).unwrap();
    for eighths in 0..=6 {
        let cut = directory().join(format!("cut_{eighths}.so"));
        fs::write(&cut, &whole[..64 + (whole.len() - 64) * eighths / 8]).unwrap();
        let message = refused(&cut, ErrorKind::NotAPlugin);
        assert!(message.contains("cut short") && message.contains("bytes"), "{message}");
    }
    // The section headers at the end of a file are not loaded.
    let cut = directory().join("cut_sections.so");
    fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    Plugin::load(&cut).unwrap();
}

#[test]
fn a_library_with_an_unresolved_symbol() {
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
fn an_entry_point_that_returns_no_table() {
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
    assert!(message.contains("PJRT API 0.10") && message.contains("0.54 or newer"), "{message}");
}

#[test]
fn a_plugin_that_is_too_new() {
    let message =
        refused(&build_plugin("too_new", "", "api.major = 1; api.minor = 0;"), ErrorKind::ApiVersion);
    assert!(message.contains("PJRT API 1.0") && message.contains("major version 0"), "{message}");
}

#[test]
fn a_newer_minor_version_with_a_longer_table_loads() {
    let plugin = Plugin::load(&build_plugin("newer", "", "api.minor = 999;")).unwrap();
    assert_eq!(plugin.version(), ApiVersion { major: 0, minor: 999 });
}

#[test]
fn a_table_that_lacks_functions() {
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
fn a_failed_initialisation_is_tried_again() {
    let locked = r#"
        static int calls = 0;
        static void *locked(void *args) { return calls++ ? 0 : fail("libtpu multi-process lockfile", 10); }"#;
    let path = build_plugin("locked", locked, "api.functions[3] = locked;");
    let message = refused(&path, ErrorKind::Init);
    assert!(message.contains("libtpu multi-process lockfile (Aborted)"), "{message}");
    assert!(message.contains("ALLOW_MULTIPLE_LIBTPU_LOAD=1"), "{message}");
    Plugin::load(&path).unwrap();
}

#[test]
fn threads_and_names_share_one_initialisation() {
    let once = r#"
        #include <unistd.h>
        static int calls = 0;
        static void *once(void *args) {
            int earlier = __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
            usleep(100000);
            return earlier ? fail("again", 6) : 0;
        }"#;
    let path = build_plugin("once", once, "api.functions[3] = once;");
    let link = path.with_file_name("once_link.so");
    let hard_link = path.with_file_name("once_hard_link.so");
    let _ = (fs::remove_file(&link), fs::remove_file(&hard_link));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    fs::hard_link(&path, &hard_link).unwrap();
    let plugins: Vec<Arc<Plugin>> = thread::scope(|scope| {
        let threads: Vec<_> = [&path, &link, &hard_link, &path, &link, &hard_link]
            .map(|path| scope.spawn(|| Plugin::load(path).unwrap()))
            .into_iter()
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(plugins.iter().all(|plugin| Arc::ptr_eq(plugin, &plugins[0])));
}

/// If an initialisation fails, all threads that wait for it receive its error. None of them repeats it.
#[test]
fn threads_share_one_failed_initialisation() {
    let gate = directory().join("gate_of_failure");
    let _ = fs::remove_file(&gate);
    let fails = format!(
        r#"
        #include <unistd.h>
        static int calls = 0;
        static void *fails(void *args) {{
            static char text[] = "attempt 0";
            text[8] = '1' + __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
            for (int i = 0; i < 6000 && access("{}", F_OK); i++) usleep(10000);
            return fail(text, 13);
        }}"#,
        gate.display()
    );
    let path = build_plugin("fails", &fails, "api.functions[3] = fails;");
    let started = Barrier::new(5);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                started.wait();
                let error = Plugin::load(&path).unwrap_err();
                assert!(error.to_string().contains("attempt 1"), "{error}");
            });
        }
        started.wait();
        // After this time, all threads wait for the initialisation, even on a busy machine.
        thread::sleep(Duration::from_secs(2));
        fs::write(&gate, "").unwrap();
    });
}

/// The results of the loads that the plugin `calling` runs during its initialisation.
static DURING_INITIALISATION: Mutex<Option<Vec<Result<Arc<Plugin>>>>> = Mutex::new(None);

extern "C" fn load_plugins() {
    let load = |name: &str| Plugin::load(&directory().join(name));
    let outcomes = vec![load("calling.so"), load("called.so")];
    *DURING_INITIALISATION.lock().unwrap() = Some(outcomes);
}

/// During its initialisation, a plugin may run code that calls this library. That code can load other plugins. If it
/// loads the same plugin, it receives an error and does not deadlock.
#[test]
fn an_initialisation_that_loads_plugins() {
    let called = build_plugin("called", "", "");
    let address = load_plugins as extern "C" fn() as usize;
    let calling =
        format!("static void *calling(void *args) {{ ((void (*)(void)){address}UL)(); return 0; }}");
    let path = build_plugin("calling", &calling, "api.functions[3] = calling;");
    let plugin = load_in_time(&path).unwrap();
    let outcomes = DURING_INITIALISATION.lock().unwrap().take().unwrap();
    let error = outcomes[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misbehaved);
    assert!(error.to_string().contains("calling.so"), "{error}");
    assert!(Arc::ptr_eq(outcomes[1].as_ref().unwrap(), &Plugin::load(&called).unwrap()));
    assert!(Arc::ptr_eq(&plugin, &Plugin::load(&path).unwrap()));
}

/// If the caller has already loaded and initialised a plugin, the library does not initialise it again.
#[test]
fn a_borrowed_plugin_is_the_one_that_is_loaded_later() {
    let twice = r#"static void *twice(void *args) { return fail("initialised twice", 9); }"#;
    let path = build_plugin("borrowed", twice, "api.functions[3] = twice;");
    // SAFETY: the library was built above and is never unloaded.
    let (borrowed, again) = unsafe {
        let library = std::mem::ManuallyDrop::new(libloading::Library::new(&path).unwrap());
        let get_api =
            library.get::<unsafe extern "C" fn() -> *const std::ffi::c_void>(b"GetPjrtApi").unwrap();
        (Plugin::borrow(get_api().cast()).unwrap(), Plugin::borrow(get_api().cast()).unwrap())
    };
    assert!(Arc::ptr_eq(&borrowed, &again));
    assert_eq!(borrowed.path(), path.canonicalize().unwrap());
    let loaded = Plugin::load(&path).unwrap();
    assert!(Arc::ptr_eq(&borrowed, &loaded));
    assert!(borrowed.fingerprint().unwrap().contains(char::is_alphanumeric));
}

/// If the caller loaded a plugin, its build is that of the loaded file. If this file was replaced or removed, the build
/// is unknown.
#[test]
fn the_build_of_a_borrowed_plugin_needs_its_file() {
    let path = build_plugin("replaced", "", "");
    // SAFETY: the library was built above and is never unloaded.
    let borrowed = unsafe {
        let library = std::mem::ManuallyDrop::new(libloading::Library::new(&path).unwrap());
        let get_api =
            library.get::<unsafe extern "C" fn() -> *const std::ffi::c_void>(b"GetPjrtApi").unwrap();
        Plugin::borrow(get_api().cast()).unwrap()
    };
    let unknown = || {
        let error = borrowed.fingerprint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let message = error.to_string();
        assert!(message.contains("replaced.so was replaced or removed"), "{message}");
        assert!(message.contains("without program_dir"), "{message}");
    };
    fs::rename(build_plugin("replacement", "int other;", ""), &path).unwrap();
    unknown();
    fs::remove_file(&path).unwrap();
    unknown();
}

/// Other plugins can be loaded while one plugin initialises.
#[test]
fn a_slow_initialisation_does_not_block_other_plugins() {
    let gate = directory().join("gate");
    let _ = fs::remove_file(&gate);
    let slow = format!(
        r#"
        #include <unistd.h>
        static void *slow(void *args) {{
            for (int i = 0; i < 6000 && access("{}", F_OK); i++) usleep(10000);
            return 0;
        }}"#,
        gate.display()
    );
    let slow = build_plugin("slow", &slow, "api.functions[3] = slow;");
    let other = build_plugin("quick", "", "");
    let loading = thread::spawn(move || Plugin::load(&slow).unwrap());
    // In most runs, the other thread is inside the initialisation after this time.
    thread::sleep(Duration::from_millis(300));
    load_in_time(&other).unwrap();
    assert!(!loading.is_finished());
    fs::write(&gate, "").unwrap();
    loading.join().unwrap();
}

#[test]
fn unknown_codes_and_invalid_text() {
    let odd = r#"static void *odd(void *args) { return fail("\xff\xfe \x1b[31modd\n\x7f", 77); }"#;
    let plugin = Plugin::load(&build_plugin("odd", odd, "api.functions[10] = odd;")).unwrap();
    let error = Client::create(plugin, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::Other(77) });
    let message = error.to_string();
    assert!(message.contains(" \\u{1b}[31modd\n\\u{7f} (code 77)"), "{message}");
    assert!(!message.contains(|c: char| c.is_control() && c != '\n'), "{message:?}");
}

#[test]
fn a_plugin_that_is_out_of_memory() {
    let full = r#"static void *full(void *args) { return fail("no memory left", 8); }"#;
    let plugin = Plugin::load(&build_plugin("full", full, "api.functions[10] = full;")).unwrap();
    let error = Client::create(plugin, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("no memory left (ResourceExhausted)"), "{error}");
    let full = build_plugin("full_init", full, "api.functions[3] = full;");
    refused(&full, ErrorKind::OutOfMemory);
}

/// A message in `nuc_error` has fewer than 968 bytes. Neither a long path nor a long text may cut off the reason.
#[test]
fn a_long_path_and_a_long_text_leave_room_for_the_reason() {
    let mut long = directory().to_owned();
    for _ in 0..10 {
        long.push("d".repeat(200));
    }
    fs::create_dir_all(&long).unwrap();
    let reason_is_near = |name: &str, kind: ErrorKind, reason: &str| {
        let message = refused(&long.join(name), kind);
        let place = message.find(reason).unwrap_or(usize::MAX);
        assert!(place < 400 && message.len() < 700, "{reason} is at byte {place} of {message}");
    };
    reason_is_near("missing.so", ErrorKind::NotFound, "No such file");
    fs::write(long.join("text.so"), "text").unwrap();
    reason_is_near("text.so", ErrorKind::NotAPlugin, "ELF");
    let unresolved = "extern int no_such(void); int call(void) { return no_such(); }";
    for (library, kind, reason) in [
        (build("far_unresolved", unresolved), ErrorKind::NotAPlugin, "no_such"),
        (build("far_no_entry", "int answer = 42;"), ErrorKind::NotAPlugin, "does not export GetPjrtApi"),
        (build_plugin("far_old", "", "api.minor = 10;"), ErrorKind::ApiVersion, "0.10"),
        (build_plugin("far_new", "", "api.major = 7;"), ErrorKind::ApiVersion, "7.115"),
        (build_plugin("far_short", "", "api.functions[8] = 0;"), ErrorKind::ApiVersion, "PJRT_Event_Await"),
    ] {
        let name = library.file_name().unwrap().to_str().unwrap();
        fs::copy(&library, long.join(name)).unwrap();
        reason_is_near(name, kind, reason);
    }

    let talks = r#"static char text[100000];
        static void *talks(void *args) { memset(text, 'x', sizeof text - 1); return fail(text, 3); }"#;
    let plugin = Plugin::load(&build_plugin("talks", talks, "api.functions[10] = talks;")).unwrap();
    let message = Client::create(plugin, &[]).unwrap_err().to_string();
    assert!(
        message.len() < 70_000
            && message.contains("[99999 bytes in all]")
            && message.contains("InvalidArgument"),
        "{message}"
    );
    fs::remove_dir_all(directory().join("d".repeat(200))).unwrap();
}
