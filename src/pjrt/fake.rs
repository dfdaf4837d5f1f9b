//! A plugin for tests that does what real ones are not supposed to do, and counts the objects it has handed out.
//!
//! Its device is host memory; a program returns copies of its inputs. Transfers happen when their event is awaited,
//! so that a caller who does not wait is found out.
// Every pointer here comes from the layer under test, in this process.
#![allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

use std::path::Path;
use std::ptr::{null, null_mut, NonNull};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex};

use pjrt_sys::*;

use super::{
    Buffer, Client, Code, CompileOptions, ElementType, Error, ErrorKind, Executable, OptionValue, Plugin,
};

/// What the fake does wrong. Passed as the client option `fault`.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(i64)]
enum Fault {
    Nothing,
    /// A device in the list is null.
    NullDevice,
    NoUploadEvent,
    NoUploadBuffer,
    UploadFails,
    DownloadFails,
    /// Downloads take no layout.
    NoLayout,
    /// Downloads take no layout, and the device's is column-major.
    NoLayoutColumnMajor,
    OddElementType,
    RunFails,
    NullOutput,
    NoRunEvent,
    NoExecutable,
}

use Fault::*;

const FAULTS: [Fault; 13] = [
    Nothing,
    NullDevice,
    NoUploadEvent,
    NoUploadBuffer,
    UploadFails,
    DownloadFails,
    NoLayout,
    NoLayoutColumnMajor,
    OddElementType,
    RunFails,
    NullOutput,
    NoRunEvent,
    NoExecutable,
];

/// Puts a value where it stays until the process ends, and where leak checkers still see it.
fn keep<T>(value: T) -> *mut T {
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let pointer = Box::into_raw(Box::new(value));
    KEPT.lock().unwrap().push(pointer as usize);
    pointer
}

/// A client. Kept, so that tests can read the count after its end.
struct State {
    fault: Fault,
    /// Objects that the caller has yet to destroy, the client among them.
    live: AtomicIsize,
}

/// Every other object of the fake.
enum Object {
    Error(&'static State, Code, &'static str),
    /// A transfer that is yet to happen, and how it will end.
    Event(&'static State, Option<Transfer>, bool),
    Buffer(&'static State, Arc<BufferData>),
    Executable(&'static State),
}

/// The buffer is kept, as a runtime must that has been asked to destroy one in use.
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
    let Object::Event(state, transfer, fails) = object((*args).event) else { panic!() };
    if let Some(transfer) = transfer.take() {
        std::ptr::copy_nonoverlapping(transfer.from, transfer.to, transfer.len);
    }
    if *fails {
        return fail(state, Code::DataLoss, "the cable fell out");
    }
    null_mut()
}

unsafe extern "C" fn event_destroy(args: *mut PJRT_Event_Destroy_Args) -> *mut PJRT_Error {
    take((*args).event);
    null_mut()
}

unsafe extern "C" fn client_create(args: *mut PJRT_Client_Create_Args) -> *mut PJRT_Error {
    let fault = (*(*args).create_options).__bindgen_anon_1.int64_value;
    let fault = *FAULTS.iter().find(|&&known| known as i64 == fault).unwrap();
    (*args).client = keep(State { fault, live: AtomicIsize::new(1) }).cast();
    null_mut()
}

unsafe extern "C" fn client_destroy(args: *mut PJRT_Client_Destroy_Args) -> *mut PJRT_Error {
    state((*args).client).live.fetch_sub(1, Ordering::SeqCst);
    null_mut()
}

unsafe extern "C" fn platform_name(args: *mut PJRT_Client_PlatformName_Args) -> *mut PJRT_Error {
    (*args).platform_name = "fake".as_ptr().cast();
    (*args).platform_name_size = 4;
    null_mut()
}

/// Leaves its outputs as they were, as a plugin without a version might: the string is null.
unsafe extern "C" fn platform_version(_: *mut PJRT_Client_PlatformVersion_Args) -> *mut PJRT_Error {
    null_mut()
}

unsafe extern "C" fn process_index(args: *mut PJRT_Client_ProcessIndex_Args) -> *mut PJRT_Error {
    (*args).process_index = 3;
    null_mut()
}

static DEVICE: u64 = 0;
struct DeviceList([*mut PJRT_Device; 2]);
unsafe impl Sync for DeviceList {}
static DEVICES: DeviceList = DeviceList([std::ptr::addr_of!(DEVICE).cast_mut().cast(), null_mut()]);

unsafe extern "C" fn devices(args: *mut PJRT_Client_AddressableDevices_Args) -> *mut PJRT_Error {
    (*args).addressable_devices = DEVICES.0.as_ptr();
    (*args).num_addressable_devices = 1 + usize::from(state((*args).client).fault == NullDevice);
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
    // Moving the vector leaves its contents where the transfer goes.
    let data = Arc::new(BufferData { bytes, dims, minor_to_major, element: args.type_ });
    if state.fault != NoUploadEvent {
        let transfer = Transfer { _buffer: data.clone(), from: args.data.cast(), to, len };
        args.done_with_host_buffer = Object::Event(state, Some(transfer), state.fault == UploadFails).give();
    }
    if state.fault != NoUploadBuffer {
        args.buffer = Object::Buffer(state, data).give();
    }
    null_mut()
}

unsafe extern "C" fn buffer_destroy(args: *mut PJRT_Buffer_Destroy_Args) -> *mut PJRT_Error {
    take((*args).buffer);
    null_mut()
}

unsafe extern "C" fn buffer_type(args: *mut PJRT_Buffer_ElementType_Args) -> *mut PJRT_Error {
    let Object::Buffer(state, data) = object((*args).buffer) else { panic!() };
    let odd = PJRT_Buffer_Type_PJRT_Buffer_Type_TOKEN;
    (*args).type_ = if state.fault == OddElementType { odd } else { data.element };
    null_mut()
}

unsafe extern "C" fn buffer_dims(args: *mut PJRT_Buffer_Dimensions_Args) -> *mut PJRT_Error {
    let Object::Buffer(_, data) = object((*args).buffer) else { panic!() };
    (*args).num_dims = data.dims.len();
    (*args).dims = if data.dims.is_empty() { null() } else { data.dims.as_ptr() };
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
    if matches!(state.fault, NoLayout | NoLayoutColumnMajor) && !(*args).host_layout.is_null() {
        return fail(state, Code::Unimplemented, "no layouts here");
    }
    assert!((*args).dst_size >= data.bytes.len());
    let (from, len) = (data.bytes.as_ptr(), data.bytes.len());
    let transfer = Transfer { _buffer: data.clone(), from, to: (*args).dst.cast(), len };
    (*args).event = Object::Event(state, Some(transfer), state.fault == DownloadFails).give();
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
    (*args).addressable_devices = DEVICES.0.as_ptr();
    (*args).num_addressable_devices = 1;
    null_mut()
}

unsafe extern "C" fn executable_destroy(args: *mut PJRT_Executable_Destroy_Args) -> *mut PJRT_Error {
    take((*args).executable);
    null_mut()
}

unsafe extern "C" fn num_outputs(args: *mut PJRT_Executable_NumOutputs_Args) -> *mut PJRT_Error {
    (*args).num_outputs = 2;
    null_mut()
}

unsafe extern "C" fn execute(args: *mut PJRT_LoadedExecutable_Execute_Args) -> *mut PJRT_Error {
    let args = &*args;
    let state = object(args.executable).state();
    let kept = (*args.options).num_non_donatable_input_indices;
    if (args.num_devices, args.num_args, kept) != (1, 2, 2) {
        return fail(state, Code::InvalidArgument, "two inputs on one device, please");
    }
    for i in 0..2 {
        let Object::Buffer(_, data) = object(*(*args.argument_lists).add(i)) else { panic!() };
        if !(i == 1 && state.fault == NullOutput) {
            *(*args.output_lists).add(i) = Object::Buffer(state, data.clone()).give();
        }
    }
    if state.fault != NoRunEvent {
        *args.device_complete_events = Object::Event(state, None, state.fault == RunFails).give();
    }
    null_mut()
}

fn plugin() -> Arc<Plugin> {
    let mut api = PJRT_Api { struct_size: size_of::<PJRT_Api>(), ..Default::default() };
    api.pjrt_api_version.minor_version = 54;
    api.PJRT_Error_Destroy = Some(error_destroy);
    api.PJRT_Error_Message = Some(error_message);
    api.PJRT_Error_GetCode = Some(error_code);
    api.PJRT_Event_Await = Some(event_await);
    api.PJRT_Event_Destroy = Some(event_destroy);
    api.PJRT_Client_Create = Some(client_create);
    api.PJRT_Client_Destroy = Some(client_destroy);
    api.PJRT_Client_PlatformName = Some(platform_name);
    api.PJRT_Client_PlatformVersion = Some(platform_version);
    api.PJRT_Client_ProcessIndex = Some(process_index);
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
    let table = NonNull::new(keep(api)).unwrap();
    Arc::new(unsafe { Plugin::from_table(table, Path::new("fake")) }.unwrap())
}

struct Fake {
    client: Arc<Client>,
    state: &'static State,
}

impl Fake {
    fn new(fault: Fault) -> Self {
        let client = Client::create(plugin(), &[("fault".into(), OptionValue::I64(fault as i64))]).unwrap();
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

    /// Nothing is left but the client, and then not that either.
    fn leaves_nothing(self) {
        assert_eq!(self.state.live.load(Ordering::SeqCst), 1, "{:?} leaked", self.state.fault);
        drop(self.client);
        assert_eq!(self.state.live.load(Ordering::SeqCst), 0);
    }
}

fn download_all(buffer: &Buffer) -> Result<[u8; 6], Error> {
    let mut bytes = [0; 6];
    buffer.to_host(&mut bytes).map(|()| bytes)
}

#[test]
fn the_fake_works_when_it_is_not_told_otherwise() {
    let fake = Fake::new(Nothing);
    assert_eq!((fake.client.platform_name(), fake.client.platform_version()), ("fake", ""));
    assert_eq!((fake.client.process_index(), fake.client.devices()[0].id()), (3, 5));
    assert_eq!(fake.client.devices()[0].local_hardware_id(), None);
    assert_eq!(fake.client.memory_stats(0), Ok(None));
    let outputs = fake.run().unwrap();
    for output in &outputs {
        assert_eq!(download_all(output).unwrap(), [1, 2, 3, 4, 5, 6]);
    }
    assert_eq!(fake.compile().unwrap().code_size(), Ok(None));
    assert_eq!(fake.compile().unwrap().serialize().unwrap_err().kind(), ErrorKind::ApiVersion);
    drop(outputs);
    fake.leaves_nothing();
}

#[test]
fn broken_promises_are_errors_and_leak_nothing() {
    for fault in [NoUploadEvent, NoUploadBuffer, OddElementType, NullOutput, NoRunEvent, NoExecutable] {
        let fake = Fake::new(fault);
        let error = fake.run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misbehaved, "{fault:?}: {error}");
        fake.leaves_nothing();
    }
    let options = [("fault".to_string(), OptionValue::I64(NullDevice as i64))];
    assert_eq!(Client::create(plugin(), &options).unwrap_err().kind(), ErrorKind::Misbehaved);
}

#[test]
fn failures_that_come_late_are_seen() {
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

#[test]
fn a_refused_call_leaks_nothing() {
    let fake = Fake::new(Nothing);
    let input = fake.upload().unwrap();
    let error = fake.compile().unwrap().execute(&[&input]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pjrt { code: Code::InvalidArgument });
    drop(input);
    fake.leaves_nothing();
}

#[test]
fn a_plugin_without_layouts_serves_if_its_own_is_dense() {
    let fake = Fake::new(NoLayout);
    assert_eq!(download_all(&fake.upload().unwrap()).unwrap(), [1, 2, 3, 4, 5, 6]);
    fake.leaves_nothing();

    let fake = Fake::new(NoLayoutColumnMajor);
    let error = download_all(&fake.upload().unwrap()).unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
    fake.leaves_nothing();
}

#[test]
fn what_is_borrowed_is_not_destroyed() {
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
