//! A plugin for tests, inside this process. It can violate the API on request, and counts the objects that it
//! returned.
//!
//! Its device is host memory, and a program returns copies of its inputs. A transfer happens only when its event is
//! awaited, so that tests detect a caller that does not wait. Its `PJRT_NamedValue` is longer than the bindings'
//! struct. A future version of the API may do the same.
// All pointers come from the layer under test, in this process.
#![allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

use std::ffi::c_void;
use std::path::Path;
use std::ptr::{null, null_mut, NonNull};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};

use pjrt_sys::*;

use super::{
    release, Buffer, Client, Code, CompileOptions, ElementType, Error, ErrorKind, Executable, OptionValue,
    Plugin,
};
use crate::panics::{is_silent, Inherited};

/// How the fake misbehaves. Tests pass it as the client option `fault`.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(i64)]
enum Fault {
    Nothing,
    /// A device in the list is null.
    NullDevice,
    NoDevices,
    NoUploadEvent,
    NoUploadBuffer,
    UploadFails,
    DownloadFails,
    /// Downloads reject a layout.
    NoLayout,
    /// Downloads reject a layout, and the device's layout is column-major.
    NoLayoutColumnMajor,
    /// Downloads return no event.
    NoDownloadEvent,
    /// Downloads reject a layout. Without a layout, they return no event.
    NoLayoutNoDownloadEvent,
    /// A wait for a download fails before the download has happened.
    NoWait,
    OddElementType,
    NegativeDimension,
    /// The size of the array overflows.
    HugeDimensions,
    /// Two dimensions, with a null pointer.
    NoDimensions,
    RunFails,
    RunExhausted,
    NullOutput,
    NoRunEvent,
    NoExecutable,
    /// A program has more outputs than fit into memory.
    ManyOutputs,
    /// A loaded program has no device.
    NoProgramDevice,
    /// The fake destroys buffers, but reports that it cannot destroy them.
    DestroyFails,
}

use Fault::*;

const FAULTS: [Fault; 24] = [
    Nothing,
    NullDevice,
    NoDevices,
    NoUploadEvent,
    NoUploadBuffer,
    UploadFails,
    DownloadFails,
    NoLayout,
    NoLayoutColumnMajor,
    NoDownloadEvent,
    NoLayoutNoDownloadEvent,
    NoWait,
    OddElementType,
    NegativeDimension,
    HugeDimensions,
    NoDimensions,
    RunFails,
    RunExhausted,
    NullOutput,
    NoRunEvent,
    NoExecutable,
    ManyOutputs,
    NoProgramDevice,
    DestroyFails,
];

/// Keeps a value until the process ends. Leak checkers still find it.
fn keep<T>(value: T) -> *mut T {
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let pointer = Box::into_raw(Box::new(value));
    KEPT.lock().unwrap().push(pointer as usize);
    pointer
}

/// A client. It is never freed, so that tests can read the counter after the client is destroyed.
struct State {
    fault: Fault,
    /// The number of objects that the caller has not destroyed yet, including the client.
    live: AtomicIsize,
    /// The number of programs whose end the caller has not awaited.
    running: AtomicIsize,
    /// The address of the memory of the last download.
    downloaded_to: AtomicUsize,
}

/// Any other object of the fake.
enum Object {
    Error(&'static State, Code, &'static str),
    /// Work that has not happened yet, and whether it will fail.
    Event(&'static State, Option<Work>, bool),
    Buffer(&'static State, Arc<BufferData>),
    Executable(&'static State),
}

enum Work {
    Copy(Transfer),
    Run,
}

/// A pending copy. It keeps its buffer alive. A runtime must do the same when a caller destroys a buffer that is in
/// use.
struct Transfer {
    _buffer: Arc<BufferData>,
    from: *const u8,
    to: *mut u8,
    len: usize,
}

struct BufferData {
    bytes: Vec<u8>,
    dims: Vec<i64>,
    minor_to_major: Vec<i64>,
    element: PJRT_Buffer_Type,
}

impl Object {
    fn state(&self) -> &'static State {
        match self {
            Self::Error(state, ..)
            | Self::Event(state, ..)
            | Self::Buffer(state, _)
            | Self::Executable(state) => state,
        }
    }

    fn give<T>(self) -> *mut T {
        self.state().live.fetch_add(1, Ordering::SeqCst);
        Box::into_raw(Box::new(self)).cast()
    }
}

unsafe fn object<'a, T>(pointer: *const T) -> &'a mut Object {
    &mut *pointer.cast_mut().cast::<Object>()
}

unsafe fn take<T>(pointer: *mut T) {
    let object = Box::from_raw(pointer.cast::<Object>());
    object.state().live.fetch_sub(1, Ordering::SeqCst);
}

unsafe fn state<T>(client: *mut T) -> &'static State {
    &*client.cast::<State>()
}

fn fail(state: &'static State, code: Code, message: &'static str) -> *mut PJRT_Error {
    Object::Error(state, code, message).give()
}

unsafe extern "C" fn error_destroy(args: *mut PJRT_Error_Destroy_Args) {
    take((*args).error);
}

unsafe extern "C" fn error_message(args: *mut PJRT_Error_Message_Args) {
    let Object::Error(_, _, message) = object((*args).error) else { panic!() };
    (*args).message = message.as_ptr().cast();
    (*args).message_size = message.len();
}

unsafe extern "C" fn error_code(args: *mut PJRT_Error_GetCode_Args) -> *mut PJRT_Error {
    let Object::Error(_, code, _) = object((*args).error) else { panic!() };
    (*args).code = (1..=16).find(|&raw| Code::from_raw(raw) == *code).unwrap();
    null_mut()
}

unsafe extern "C" fn event_await(args: *mut PJRT_Event_Await_Args) -> *mut PJRT_Error {
    let Object::Event(state, work, fails) = object((*args).event) else { panic!() };
    if *fails && state.fault == NoWait {
        return fail(state, Code::Internal, "no time to wait");
    }
    match work.take() {
        Some(Work::Copy(copy)) => std::ptr::copy_nonoverlapping(copy.from, copy.to, copy.len),
        Some(Work::Run) => {
            state.running.fetch_sub(1, Ordering::SeqCst);
        }
        None => {}
    }
    if *fails {
        return fail(state, Code::DataLoss, "the cable fell out");
    }
    null_mut()
}

unsafe extern "C" fn event_is_ready(args: *mut PJRT_Event_IsReady_Args) -> *mut PJRT_Error {
    let Object::Event(_, work, _) = object((*args).event) else { panic!() };
    (*args).is_ready = work.is_none();
    null_mut()
}

/// Calls the callback on another thread before it returns.
unsafe extern "C" fn event_on_ready(args: *mut PJRT_Event_OnReady_Args) -> *mut PJRT_Error {
    let (callback, user) = ((*args).callback.unwrap(), (*args).user_arg as usize);
    std::thread::spawn(move || callback(null_mut(), user as *mut c_void)).join().unwrap();
    null_mut()
}

unsafe extern "C" fn event_destroy(args: *mut PJRT_Event_Destroy_Args) -> *mut PJRT_Error {
    take((*args).event);
    null_mut()
}

/// A `PJRT_NamedValue` with fields that the bindings do not know.
#[repr(C)]
struct LongNamedValue {
    known: PJRT_NamedValue,
    unknown: [usize; 2],
}

unsafe extern "C" fn plugin_attributes(args: *mut PJRT_Plugin_Attributes_Args) -> *mut PJRT_Error {
    type Value = PJRT_NamedValue__bindgen_ty_1;
    let long = |name: &'static str, type_, value, value_size| LongNamedValue {
        known: PJRT_NamedValue {
            struct_size: size_of::<LongNamedValue>(),
            name: name.as_ptr().cast(),
            name_size: name.len(),
            type_,
            __bindgen_anon_1: value,
            value_size,
            ..Default::default()
        },
        unknown: [usize::MAX; 2],
    };
    let text = "tab\there";
    let attributes = keep([
        long("xla_version", PJRT_NamedValue_Type_PJRT_NamedValue_kInt64, Value { int64_value: 7 }, 1),
        long(
            "note",
            PJRT_NamedValue_Type_PJRT_NamedValue_kString,
            Value { string_value: text.as_ptr().cast() },
            text.len(),
        ),
        long("last", PJRT_NamedValue_Type_PJRT_NamedValue_kFloat, Value { float_value: 0.5 }, 1),
    ]);
    (*args).attributes = attributes.cast();
    (*args).num_attributes = 3;
    null_mut()
}

/// Searches for the option `fault`, and uses the struct size of this plugin as the distance between options.
unsafe extern "C" fn client_create(args: *mut PJRT_Client_Create_Args) -> *mut PJRT_Error {
    let options =
        std::slice::from_raw_parts((*args).create_options.cast::<LongNamedValue>(), (*args).num_options);
    assert!(options.iter().all(|option| option.known.struct_size == size_of::<LongNamedValue>()));
    assert!(options.iter().all(|option| option.unknown == [0; 2]));
    let named_fault = |option: &&LongNamedValue| {
        std::slice::from_raw_parts(option.known.name.cast::<u8>(), option.known.name_size) == b"fault"
    };
    let fault = options.iter().find(named_fault).unwrap().known.__bindgen_anon_1.int64_value;
    let fault = *FAULTS.iter().find(|&&known| known as i64 == fault).unwrap();
    (*args).client = keep(State {
        fault,
        live: AtomicIsize::new(1),
        running: AtomicIsize::new(0),
        downloaded_to: AtomicUsize::new(0),
    })
    .cast();
    null_mut()
}

unsafe extern "C" fn client_destroy(args: *mut PJRT_Client_Destroy_Args) -> *mut PJRT_Error {
    state((*args).client).live.fetch_sub(1, Ordering::SeqCst);
    null_mut()
}

unsafe extern "C" fn platform_name(args: *mut PJRT_Client_PlatformName_Args) -> *mut PJRT_Error {
    (*args).platform_name = "fake\x07".as_ptr().cast();
    (*args).platform_name_size = 5;
    null_mut()
}

/// Does not write its outputs, so the string is null. A plugin that has no version may do this.
unsafe extern "C" fn platform_version(_: *mut PJRT_Client_PlatformVersion_Args) -> *mut PJRT_Error {
    null_mut()
}

static DEVICE: u64 = 0;
struct DeviceList([*mut PJRT_Device; 2]);
unsafe impl Sync for DeviceList {}
static DEVICES: DeviceList = DeviceList([std::ptr::addr_of!(DEVICE).cast_mut().cast(), null_mut()]);

unsafe extern "C" fn devices(args: *mut PJRT_Client_AddressableDevices_Args) -> *mut PJRT_Error {
    (*args).addressable_devices = DEVICES.0.as_ptr();
    (*args).num_addressable_devices = match state((*args).client).fault {
        NoDevices => 0,
        NullDevice => 2,
        _ => 1,
    };
    null_mut()
}

unsafe extern "C" fn description(args: *mut PJRT_Device_GetDescription_Args) -> *mut PJRT_Error {
    (*args).device_description = (*args).device.cast();
    null_mut()
}

unsafe extern "C" fn device_id(args: *mut PJRT_DeviceDescription_Id_Args) -> *mut PJRT_Error {
    (*args).id = 5;
    null_mut()
}

unsafe extern "C" fn device_kind(_: *mut PJRT_DeviceDescription_Kind_Args) -> *mut PJRT_Error {
    null_mut()
}

unsafe extern "C" fn device_debug(_: *mut PJRT_DeviceDescription_DebugString_Args) -> *mut PJRT_Error {
    null_mut()
}

unsafe extern "C" fn upload(args: *mut PJRT_Client_BufferFromHostBuffer_Args) -> *mut PJRT_Error {
    let args = &mut *args;
    let state = state(args.client);
    let dims = std::slice::from_raw_parts(args.dims, args.num_dims).to_vec();
    let len = dims.iter().product::<i64>() as usize * ElementType::from_raw(args.type_).unwrap().size();
    let mut bytes = vec![0; len];
    let to = bytes.as_mut_ptr();
    let mut minor_to_major: Vec<i64> = (0..dims.len() as i64).rev().collect();
    if state.fault == NoLayoutColumnMajor {
        minor_to_major.reverse();
    }
    // Moving the vector does not move its contents, so `to` stays valid.
    let data = Arc::new(BufferData { bytes, dims, minor_to_major, element: args.type_ });
    if state.fault != NoUploadEvent {
        let transfer = Transfer { _buffer: data.clone(), from: args.data.cast(), to, len };
        args.done_with_host_buffer =
            Object::Event(state, Some(Work::Copy(transfer)), state.fault == UploadFails).give();
    }
    if state.fault != NoUploadBuffer {
        args.buffer = Object::Buffer(state, data).give();
    }
    null_mut()
}

unsafe extern "C" fn buffer_destroy(args: *mut PJRT_Buffer_Destroy_Args) -> *mut PJRT_Error {
    let state = object((*args).buffer).state();
    take((*args).buffer);
    if state.fault == DestroyFails {
        return fail(state, Code::Internal, "the buffer is stuck");
    }
    null_mut()
}

unsafe extern "C" fn buffer_type(args: *mut PJRT_Buffer_ElementType_Args) -> *mut PJRT_Error {
    let Object::Buffer(state, data) = object((*args).buffer) else { panic!() };
    let odd = PJRT_Buffer_Type_PJRT_Buffer_Type_TOKEN;
    (*args).type_ = if state.fault == OddElementType { odd } else { data.element };
    null_mut()
}

unsafe extern "C" fn buffer_dims(args: *mut PJRT_Buffer_Dimensions_Args) -> *mut PJRT_Error {
    let Object::Buffer(state, data) = object((*args).buffer) else { panic!() };
    let dims: &[i64] = match state.fault {
        NegativeDimension => &[2, -3],
        HugeDimensions => &[i64::MAX, 2],
        _ => &data.dims,
    };
    (*args).num_dims = dims.len();
    (*args).dims = if dims.is_empty() || state.fault == NoDimensions { null() } else { dims.as_ptr() };
    null_mut()
}

unsafe extern "C" fn buffer_layout(args: *mut PJRT_Buffer_GetMemoryLayout_Args) -> *mut PJRT_Error {
    let Object::Buffer(_, data) = object((*args).buffer) else { panic!() };
    let tiled = PJRT_Buffer_MemoryLayout_Tiled {
        minor_to_major: data.minor_to_major.as_ptr(),
        minor_to_major_size: data.minor_to_major.len(),
        ..Default::default()
    };
    (*args).layout.type_ = PJRT_Buffer_MemoryLayout_Type_PJRT_Buffer_MemoryLayout_Type_Tiled;
    (*args).layout.__bindgen_anon_1 = PJRT_Buffer_MemoryLayout__bindgen_ty_1 { tiled };
    null_mut()
}

unsafe extern "C" fn download(args: *mut PJRT_Buffer_ToHostBuffer_Args) -> *mut PJRT_Error {
    let Object::Buffer(state, data) = object((*args).src) else { panic!() };
    let refuses_layouts = matches!(state.fault, NoLayout | NoLayoutColumnMajor | NoLayoutNoDownloadEvent);
    if refuses_layouts && !(*args).host_layout.is_null() {
        return fail(state, Code::Unimplemented, "no layouts here");
    }
    assert!((*args).dst_size >= data.bytes.len());
    let (from, len) = (data.bytes.as_ptr(), data.bytes.len());
    let transfer = Transfer { _buffer: data.clone(), from, to: (*args).dst.cast(), len };
    state.downloaded_to.store((*args).dst as usize, Ordering::SeqCst);
    if !matches!(state.fault, NoDownloadEvent | NoLayoutNoDownloadEvent) {
        let fails = matches!(state.fault, DownloadFails | NoWait);
        (*args).event = Object::Event(state, Some(Work::Copy(transfer)), fails).give();
    }
    null_mut()
}

unsafe extern "C" fn compile(args: *mut PJRT_Client_Compile_Args) -> *mut PJRT_Error {
    (*args).executable = Object::Executable(state((*args).client)).give();
    null_mut()
}

unsafe extern "C" fn loaded_destroy(args: *mut PJRT_LoadedExecutable_Destroy_Args) -> *mut PJRT_Error {
    take((*args).executable);
    null_mut()
}

unsafe extern "C" fn loaded_executable(
    args: *mut PJRT_LoadedExecutable_GetExecutable_Args,
) -> *mut PJRT_Error {
    let state = object((*args).loaded_executable).state();
    if state.fault != NoExecutable {
        (*args).executable = Object::Executable(state).give();
    }
    null_mut()
}

unsafe extern "C" fn loaded_devices(
    args: *mut PJRT_LoadedExecutable_AddressableDevices_Args,
) -> *mut PJRT_Error {
    let state = object((*args).executable).state();
    (*args).addressable_devices = DEVICES.0.as_ptr();
    (*args).num_addressable_devices = usize::from(state.fault != NoProgramDevice);
    null_mut()
}

unsafe extern "C" fn executable_destroy(args: *mut PJRT_Executable_Destroy_Args) -> *mut PJRT_Error {
    take((*args).executable);
    null_mut()
}

unsafe extern "C" fn num_outputs(args: *mut PJRT_Executable_NumOutputs_Args) -> *mut PJRT_Error {
    let many = object((*args).executable).state().fault == ManyOutputs;
    (*args).num_outputs = if many { usize::MAX / 16 } else { 2 };
    null_mut()
}

unsafe extern "C" fn execute(args: *mut PJRT_LoadedExecutable_Execute_Args) -> *mut PJRT_Error {
    let args = &*args;
    let state = object(args.executable).state();
    let kept = (*args.options).num_non_donatable_input_indices;
    if (args.num_devices, args.num_args, kept) != (1, 2, 2) {
        return fail(state, Code::InvalidArgument, "a program has two inputs on one device");
    }
    if state.fault == RunExhausted {
        return fail(state, Code::ResourceExhausted, "the device is full");
    }
    for i in 0..2 {
        let Object::Buffer(_, data) = object(*(*args.argument_lists).add(i)) else { panic!() };
        if !(i == 1 && state.fault == NullOutput) {
            *(*args.output_lists).add(i) = Object::Buffer(state, data.clone()).give();
        }
    }
    if state.fault != NoRunEvent {
        state.running.fetch_add(1, Ordering::SeqCst);
        let end = Object::Event(state, Some(Work::Run), state.fault == RunFails);
        *args.device_complete_events = end.give();
    }
    null_mut()
}

fn table() -> NonNull<PJRT_Api> {
    let mut api = PJRT_Api { struct_size: size_of::<PJRT_Api>(), ..Default::default() };
    api.pjrt_api_version.minor_version = 54;
    api.PJRT_Error_Destroy = Some(error_destroy);
    api.PJRT_Error_Message = Some(error_message);
    api.PJRT_Error_GetCode = Some(error_code);
    api.PJRT_Plugin_Attributes = Some(plugin_attributes);
    api.PJRT_Event_Await = Some(event_await);
    api.PJRT_Event_OnReady = Some(event_on_ready);
    api.PJRT_Event_IsReady = Some(event_is_ready);
    api.PJRT_Event_Destroy = Some(event_destroy);
    api.PJRT_Client_Create = Some(client_create);
    api.PJRT_Client_Destroy = Some(client_destroy);
    api.PJRT_Client_PlatformName = Some(platform_name);
    api.PJRT_Client_PlatformVersion = Some(platform_version);
    api.PJRT_Client_AddressableDevices = Some(devices);
    api.PJRT_Client_Compile = Some(compile);
    api.PJRT_Client_BufferFromHostBuffer = Some(upload);
    api.PJRT_Device_GetDescription = Some(description);
    api.PJRT_DeviceDescription_Id = Some(device_id);
    api.PJRT_DeviceDescription_Kind = Some(device_kind);
    api.PJRT_DeviceDescription_DebugString = Some(device_debug);
    api.PJRT_Buffer_Destroy = Some(buffer_destroy);
    api.PJRT_Buffer_ElementType = Some(buffer_type);
    api.PJRT_Buffer_Dimensions = Some(buffer_dims);
    api.PJRT_Buffer_GetMemoryLayout = Some(buffer_layout);
    api.PJRT_Buffer_ToHostBuffer = Some(download);
    api.PJRT_LoadedExecutable_Destroy = Some(loaded_destroy);
    api.PJRT_LoadedExecutable_GetExecutable = Some(loaded_executable);
    api.PJRT_LoadedExecutable_AddressableDevices = Some(loaded_devices);
    api.PJRT_LoadedExecutable_Execute = Some(execute);
    api.PJRT_Executable_Destroy = Some(executable_destroy);
    api.PJRT_Executable_NumOutputs = Some(num_outputs);
    NonNull::new(keep(api)).unwrap()
}

/// Creates a plugin that no other test shares.
fn plugin() -> Arc<Plugin> {
    Arc::new(unsafe { Plugin::from_table(table(), Path::new("fake")) }.unwrap())
}

struct Fake {
    client: Arc<Client>,
    state: &'static State,
}

fn options(fault: Fault) -> [(String, OptionValue); 3] {
    // The plugin finds its option only if it uses the correct distance between options.
    [
        ("first".into(), OptionValue::Str("text".into())),
        ("second".into(), OptionValue::Bool(true)),
        ("fault".into(), OptionValue::I64(fault as i64)),
    ]
}

impl Fake {
    fn new(fault: Fault) -> Self {
        let client = Client::create(plugin(), &options(fault)).unwrap();
        let state = unsafe { state(client.as_raw()) };
        Self { client, state }
    }

    fn upload(&self) -> Result<Buffer, Error> {
        self.client.buffer_from_host(&[1, 2, 3, 4, 5, 6], ElementType::U8, &[2, 3], 0)
    }

    fn compile(&self) -> Result<Arc<Executable>, Error> {
        self.client.compile("anything", &CompileOptions::for_device(5))
    }

    fn run(&self) -> Result<Vec<Buffer>, Error> {
        let input = self.upload()?;
        self.compile()?.execute(&[&input, &input])
    }

    /// Checks that every run was awaited, and that only the client is left. Then destroys the client and checks that
    /// nothing is left.
    fn leaves_nothing(self) {
        assert_eq!(
            self.state.running.load(Ordering::SeqCst),
            0,
            "{:?}: a program still runs",
            self.state.fault
        );
        assert_eq!(self.state.live.load(Ordering::SeqCst), 1, "{:?} leaked", self.state.fault);
        drop(self.client);
        assert_eq!(self.state.live.load(Ordering::SeqCst), 0);
    }
}

fn download_all(buffer: &Buffer) -> Result<Vec<u8>, Error> {
    buffer.to_host()
}

#[test]
fn the_fake_works_without_a_fault() {
    let fake = Fake::new(Nothing);
    assert_eq!((fake.client.platform_name(), fake.client.platform_version()), ("fake\\u{7}", ""));
    assert_eq!(fake.client.devices()[0].id(), 5);
    let outputs = fake.run().unwrap();
    for output in &outputs {
        assert_eq!(download_all(output).unwrap(), [1, 2, 3, 4, 5, 6]);
    }
    assert_eq!(fake.compile().unwrap().serialize().unwrap_err().kind(), ErrorKind::ApiVersion);
    drop(outputs);
    fake.leaves_nothing();
}

#[test]
fn violations_of_the_api_are_errors_and_leak_nothing() {
    for fault in [
        NoUploadEvent,
        NoUploadBuffer,
        OddElementType,
        NegativeDimension,
        HugeDimensions,
        NoDimensions,
        NullOutput,
        NoRunEvent,
        NoExecutable,
        ManyOutputs,
        NoProgramDevice,
    ] {
        let fake = Fake::new(fault);
        let error = fake.run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misbehaved, "{fault:?}: {error}");
        fake.leaves_nothing();
    }
    let error = Client::create(plugin(), &options(NullDevice)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misbehaved);
}

#[test]
fn a_client_without_devices_is_a_device_error() {
    let error = Client::create(plugin(), &options(NoDevices)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoDevice, "{error}");
    assert!(error.to_string().contains("no device"), "{error}");
}

/// The library's programs define the arrays that they return. So another size is the plugin's error, not the user's.
#[test]
fn arrays_of_another_size_are_the_plugins_error() {
    let fake = Fake::new(Nothing);
    let buffer = fake.upload().unwrap();
    assert_eq!((buffer.element(), buffer.dims(), buffer.host_size()), (ElementType::U8, &[2, 3][..], 6));
    let error = buffer.to_host::<i32>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misbehaved);
    assert!(error.to_string().contains("takes 6 bytes"), "{error}");
    drop(buffer);
    fake.leaves_nothing();
}

#[test]
fn exhausted_resources_are_out_of_memory() {
    let fake = Fake::new(RunExhausted);
    let error = fake.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    fake.leaves_nothing();
}

/// The structs of the fake's named values are longer than those of the bindings.
#[test]
fn named_values_are_strided_by_the_plugins_struct_size() {
    let plugin = plugin();
    let expected = vec![
        ("xla_version".to_owned(), OptionValue::I64(7)),
        ("note".to_owned(), OptionValue::Str("tab\\there".to_owned())),
        ("last".to_owned(), OptionValue::F32(0.5)),
    ];
    assert_eq!(plugin.attributes().unwrap(), expected);
    assert_eq!(plugin.named_value_size(), Some(size_of::<LongNamedValue>()));
    // `Fake::new` fails unless the fake finds its option after two others.
    Fake::new(Nothing).leaves_nothing();
}

#[test]
fn failures_of_asynchronous_work_are_returned() {
    for fault in [UploadFails, RunFails] {
        let fake = Fake::new(fault);
        let error = fake.run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::DataLoss }, "{fault:?}: {error}");
        assert!(error.to_string().contains("the cable fell out"), "{error}");
        fake.leaves_nothing();
    }
    let fake = Fake::new(DownloadFails);
    let outputs = fake.run().unwrap();
    assert_eq!(download_all(&outputs[0]).unwrap_err().kind(), ErrorKind::Pjrt { code: Code::DataLoss });
    drop(outputs);
    fake.leaves_nothing();
}

/// A caller may destroy the client after it dropped a launch, so the drop waits. The wait also happens if the program
/// was dropped before.
#[test]
fn a_dropped_launch_waits_for_the_program() {
    let fake = Fake::new(Nothing);
    let input = fake.upload().unwrap();
    let program = fake.compile().unwrap();
    let launch = program.launch(&[&input, &input], None).unwrap();
    drop((program, input));
    assert_eq!(fake.state.running.load(Ordering::SeqCst), 1);
    drop(launch);
    fake.leaves_nothing();
}

/// A thread of the plugin runs the action on behalf of the thread that registered it.
#[test]
fn an_action_is_as_silent_as_the_thread_that_registered_it() {
    let fake = Fake::new(Nothing);
    let input = fake.upload().unwrap();
    let launch = fake.compile().unwrap().launch(&[&input, &input], None).unwrap();
    for (panics, silent) in [(Inherited::SILENT, true), (Inherited::from_this_thread(), false)] {
        let (send, receive) = mpsc::channel();
        panics.run(|| launch.on_ready(move |_| send.send(is_silent()).unwrap())).unwrap();
        assert_eq!(receive.recv(), Ok(silent));
    }
    drop((launch, input));
    fake.leaves_nothing();
}

#[test]
fn a_rejected_call_leaks_nothing() {
    let fake = Fake::new(Nothing);
    let input = fake.upload().unwrap();
    let error = fake.compile().unwrap().execute(&[&input]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::InvalidArgument });
    drop(input);
    fake.leaves_nothing();
}

#[test]
fn a_plugin_without_layouts_works_if_its_own_layout_is_dense() {
    let fake = Fake::new(NoLayout);
    assert_eq!(download_all(&fake.upload().unwrap()).unwrap(), [1, 2, 3, 4, 5, 6]);
    fake.leaves_nothing();

    let fake = Fake::new(NoLayoutColumnMajor);
    let error = download_all(&fake.upload().unwrap()).unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
    fake.leaves_nothing();
}

/// If a plugin does not report the end of a download, it may write to the memory at any later time. So the memory is
/// never freed.
#[test]
fn memory_that_a_plugin_may_still_write_to_is_not_freed() {
    let is_freed = |fault| {
        let fake = Fake::new(fault);
        download_all(&fake.upload().unwrap()).unwrap_err();
        // If the memory is free, the allocator returns it for one of these allocations of the same size.
        let others: Vec<Vec<u8>> = (0..1000).map(|_| Vec::with_capacity(6)).collect();
        let memory = fake.state.downloaded_to.load(Ordering::SeqCst);
        fake.leaves_nothing();
        others.iter().any(|other| other.as_ptr() as usize == memory)
    };
    for fault in [NoDownloadEvent, NoLayoutNoDownloadEvent, NoWait] {
        assert!(!is_freed(fault), "{fault:?}");
    }
    // This download has ended, so its memory is freed.
    assert!(is_freed(DownloadFails));
}

/// A value may be dropped while a caller holds a lock, so the drop must not log. The failure is stored until it can be
/// logged.
#[test]
fn a_failed_destruction_is_kept_for_the_log() {
    let fake = Fake::new(DestroyFails);
    drop(fake.upload().unwrap());
    let waits = |failures: Vec<String>| failures.iter().any(|text| text.contains("the buffer is stuck"));
    assert!(waits(release::pending()));
    fake.leaves_nothing();
    release::log_release_failures();
    assert!(!waits(release::pending()));
}

#[test]
fn borrowed_objects_are_not_destroyed() {
    let fake = Fake::new(Nothing);
    let buffer = fake.upload().unwrap();
    unsafe {
        let plugin = Plugin::borrow(fake.client.plugin().as_raw()).unwrap();
        let client = Client::borrow(plugin, fake.client.as_raw()).unwrap();
        let borrowed = Buffer::borrow(&client, buffer.as_raw()).unwrap();
        assert_eq!(download_all(&borrowed).unwrap(), [1, 2, 3, 4, 5, 6]);
    }
    assert_eq!(download_all(&buffer).unwrap(), [1, 2, 3, 4, 5, 6]);
    drop(buffer);
    fake.leaves_nothing();
}

#[test]
fn a_plugin_is_borrowed_once() {
    let (one, other) = (table(), table());
    unsafe {
        let first = Plugin::borrow(one.as_ptr()).unwrap();
        assert!(Arc::ptr_eq(&first, &Plugin::borrow(one.as_ptr()).unwrap()));
        assert!(!Arc::ptr_eq(&first, &Plugin::borrow(other.as_ptr()).unwrap()));
        // The functions of this table are in the test program.
        let program = std::env::current_exe().unwrap();
        assert_eq!(first.path(), program);
        assert_eq!(
            first.fingerprint().unwrap(),
            Plugin::borrow(other.as_ptr()).unwrap().fingerprint().unwrap()
        );
    }
}
