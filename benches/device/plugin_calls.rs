//! Calls the functions of the plugin without the library, as a program in C does.

use std::mem::size_of;
use std::ptr::null_mut;
use std::sync::Arc;

use nucleus::pjrt::{Buffer, Client, Executable};
use pjrt_sys::*;

/// A struct of the C API and space for the fields of newer versions.
#[repr(C)]
#[derive(Default)]
struct Args<T> {
    base: T,
    reserve: [usize; 16],
}

/// A compiled program and its operands.
pub(crate) struct Program<'a> {
    api: &'a PJRT_Api,
    program: Arc<Executable>,
    operands: Vec<*mut PJRT_Buffer>,
    owned: Vec<Buffer>,
}

/// A running program. Dropping it waits for the program and frees its results.
pub(crate) struct Run {
    api: *const PJRT_Api,
    events: Vec<*mut PJRT_Event>,
    outputs: [*mut PJRT_Buffer; 2],
    tokens: Vec<i32>,
}

impl<'a> Program<'a> {
    pub(crate) fn new(
        client: &'a Arc<Client>,
        program: Arc<Executable>,
        operands: Vec<Buffer>,
        logits: &Buffer,
    ) -> Program<'a> {
        assert_eq!(program.num_outputs(), 2);
        let raw = std::iter::once(logits).chain(&operands).map(Buffer::as_raw).collect();
        // SAFETY: the table belongs to a loaded plugin. The plugin stays loaded until the process ends.
        let api = unsafe { &*client.plugin().as_raw() };
        Program { api, program, operands: raw, owned: operands }
    }

    pub(crate) fn execute(&self) -> Run {
        let mut options = Args::<PJRT_ExecuteOptions>::default();
        options.base.struct_size = size_of_val(&options);
        let (mut outputs, mut event) = ([null_mut(); 2], null_mut());
        let (operands, output_list) = (self.operands.as_ptr(), outputs.as_mut_ptr());
        let mut args = Args::<PJRT_LoadedExecutable_Execute_Args>::default();
        args.base.struct_size = size_of_val(&args);
        args.base.executable = self.program.as_raw();
        args.base.options = &mut options.base;
        args.base.argument_lists = &operands;
        args.base.num_devices = 1;
        args.base.num_args = self.operands.len();
        args.base.output_lists = &output_list;
        args.base.device_complete_events = &mut event;
        // SAFETY: the objects are alive and belong to one client. The lists have the lengths that the program
        // needs.
        let error = unsafe { self.api.PJRT_LoadedExecutable_Execute.unwrap()(&mut args.base) };
        assert!(error.is_null());
        Run { api: self.api, events: vec![event], outputs, tokens: Vec::new() }
    }

    pub(crate) fn execute_and_copy_tokens(&self) -> Run {
        let mut run = self.execute();
        let rows = self.owned[0].dims()[0] as usize;
        run.tokens = vec![0; rows];
        let mut args = Args::<PJRT_Buffer_ToHostBuffer_Args>::default();
        args.base.struct_size = size_of_val(&args);
        args.base.src = run.outputs[1];
        args.base.dst = run.tokens.as_mut_ptr().cast();
        args.base.dst_size = rows * size_of::<i32>();
        // SAFETY: the buffer is alive, and the memory has its size. `Run` frees the memory after the event.
        let error = unsafe { self.api.PJRT_Buffer_ToHostBuffer.unwrap()(&mut args.base) };
        assert!(error.is_null());
        run.events.push(args.base.event);
        run
    }
}

impl Run {
    /// Waits for the program, and for the copy of the tokens.
    pub(crate) fn wait(&self) {
        // SAFETY: as in `Program::new`. The events are alive.
        unsafe {
            for &event in &self.events {
                let mut args = Args::<PJRT_Event_Await_Args>::default();
                (args.base.struct_size, args.base.event) = (size_of_val(&args), event);
                assert!((*self.api).PJRT_Event_Await.unwrap()(&mut args.base).is_null());
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.wait();
        // SAFETY: as in `Program::new`. The events and buffers are alive, and nothing uses them afterwards.
        unsafe {
            let api = &*self.api;
            for &event in &self.events {
                let mut args = Args::<PJRT_Event_Destroy_Args>::default();
                (args.base.struct_size, args.base.event) = (size_of_val(&args), event);
                assert!(api.PJRT_Event_Destroy.unwrap()(&mut args.base).is_null());
            }
            for buffer in self.outputs {
                let mut args = Args::<PJRT_Buffer_Destroy_Args>::default();
                (args.base.struct_size, args.base.buffer) = (size_of_val(&args), buffer);
                assert!(api.PJRT_Buffer_Destroy.unwrap()(&mut args.base).is_null());
            }
        }
    }
}
