//! The program directory of samplers that use a client of the caller.
//!
//! Each sampler is created in a child process. In the process of the tests, other tests load the plugin by its path.
//! The library would then already know the file of the plugin.

use std::ffi::{c_void, CStr, CString};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use nucleus::abi::*;
use nucleus::pjrt::{Client, OptionValue, Plugin};
use pjrt_sys::{PJRT_Api, PJRT_Plugin_Initialize_Args};

use crate::abi::{batch, create, outcome, sampler_options, zeroed, Sampler};
use crate::common;

const PLUGIN: &str = "lammps-jax-pjrt-cpu";

/// A program file matches only clients with the same number of devices. So every client has one device.
const DEVICE_COUNT: &CStr = c"cpu_device_count";

/// The environment variables of a child process.
const DIRECTORY: &str = "NUCLEUS_TEST_BORROWED_DIRECTORY";
const OWNER: &str = "NUCLEUS_TEST_BORROWED_OWNER";

/// The first sampler compiles and writes its program. A second sampler in another process loads the program. A sampler
/// that loads the plugin by its path also loads the program. The functions of a plugin's table can be in several files.
/// A program file then matches only if all these files are the same.
#[test]
fn programs_are_written_and_loaded_by_other_processes() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("borrowed-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).unwrap();
    let (written, loaded) = ("compiles 1, loaded 0", "compiles 0, loaded 1");
    for (owner, expected) in
        [("caller", written), ("caller", loaded), ("sampler", loaded), ("wrapper", written)]
    {
        assert_eq!(run_child(owner, &path), expected, "the client belongs to: {owner}");
    }
    fs::remove_dir_all(&path).unwrap();
}

fn run_child(owner: &str, directory: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "borrowed_client::child", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(OWNER, owner)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let result = text.lines().find_map(|line| line.split_once("result: "));
    result.unwrap_or_else(|| panic!("no result in {text}")).1.to_owned()
}

/// Creates a sampler with a program directory, samples once, and prints the numbers of compiled and loaded programs.
#[test]
#[ignore = "a child process of the other test"]
fn child() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let directory = CString::new(variable(DIRECTORY)).unwrap();
    let path = CString::new(common::plugin(PLUGIN).to_str().unwrap()).unwrap();
    let owner = variable(OWNER);
    let mut options =
        nuc_sampler_options { program_dir: directory.as_ptr(), write_programs: 1, ..sampler_options() };
    let one_device = nuc_client_option {
        name: DEVICE_COUNT.as_ptr(),
        r#type: NUC_OPTION_INT64,
        int64_value: 1,
        // SAFETY: a struct of the ABI.
        ..unsafe { zeroed() }
    };
    let client = match owner.as_str() {
        "sampler" => None,
        _ => Some(callers_client(owner == "wrapper")),
    };
    match &client {
        None => {
            options.plugin_path = path.as_ptr();
            (options.client_options, options.num_client_options) = (&one_device, 1);
        }
        Some(client) => {
            options.pjrt_api = client.plugin().as_raw().cast();
            options.pjrt_client = client.as_raw().cast();
        }
    }
    let created = outcome(|error| {
        let (status, sampler) = create(&options, error);
        let sampler = Sampler(sampler);
        if status == NUC_OK {
            sample_and_report(&sampler);
        }
        status
    });
    assert_eq!(created.status, NUC_OK, "{created:?}");
}

/// Loads and initialises a plugin as an application does, and creates a client. With `wrap`, the client uses a copy of
/// the plugin's table. In this copy, a function of this program replaces one entry.
fn callers_client(wrap: bool) -> Arc<Client> {
    // SAFETY: the plugin is never unloaded. The argument struct is complete. The tables live until the process ends.
    unsafe {
        let library = libloading::Library::new(common::plugin(PLUGIN)).unwrap();
        let library = std::mem::ManuallyDrop::new(library);
        let get_api = library.get::<unsafe extern "C" fn() -> *const PJRT_Api>(b"GetPjrtApi\0").unwrap();
        let original = get_api();
        let mut args = PJRT_Plugin_Initialize_Args {
            struct_size: size_of::<PJRT_Plugin_Initialize_Args>(),
            extension_start: null_mut(),
        };
        assert!((*original).PJRT_Plugin_Initialize.unwrap()(&mut args).is_null());
        let table: *const PJRT_Api =
            if wrap { Box::leak(wrapped(original)).as_ptr().cast() } else { original };
        let plugin = Plugin::borrow(table).unwrap();
        let one_device = [(DEVICE_COUNT.to_str().unwrap().to_owned(), OptionValue::I64(1))];
        Client::create(plugin, &one_device).unwrap()
    }
}

/// Returns a copy of a table as words, with the entry of `PJRT_Plugin_Attributes` replaced. The table can be longer
/// than `PJRT_Api`.
///
/// # Safety
/// `table` must be a table of the C API.
unsafe fn wrapped(table: *const PJRT_Api) -> Box<[usize]> {
    extern "C" fn no_attributes(args: *mut c_void) -> *mut c_void {
        // SAFETY: the argument struct ends with the list and its length.
        unsafe { args.cast::<usize>().add(3).write(0) };
        null_mut()
    }
    let at = std::mem::offset_of!(PJRT_Api, PJRT_Plugin_Attributes);
    // SAFETY: the caller guarantees the table, and a table starts with its size in bytes.
    let words: &[usize] =
        unsafe { std::slice::from_raw_parts(table.cast(), (*table).struct_size / size_of::<usize>()) };
    let mut words: Box<[usize]> = words.into();
    words[at / size_of::<usize>()] = no_attributes as *const () as usize;
    words
}

fn sample_and_report(sampler: &Sampler) {
    let mut token = -7;
    // SAFETY: a live handle and local variables.
    let stats = unsafe {
        let sampled = outcome(|error| {
            nuc_topk_topp_and_sample(sampler.0, &batch(), null(), &mut token, null_mut(), null(), error)
        });
        assert_eq!(sampled.status, NUC_OK, "{sampled:?}");
        let mut stats = nuc_sampler_stats {
            struct_size: size_of::<nuc_sampler_stats>(),
            ..zeroed::<nuc_sampler_stats>()
        };
        assert_eq!(nuc_sampler_get_stats(sampler.0, &mut stats, null_mut()), NUC_OK);
        stats
    };
    assert!((0..3).contains(&token));
    println!("\nresult: compiles {}, loaded {}", stats.compiles, stats.loaded);
}
