// A thin C++ layer over the PJRT C API: owned handles, and exceptions instead of error pointers. It supports one device
// and dense row-major arrays.
#pragma once

#include <dlfcn.h>
#include <xla/pjrt/c/pjrt_c_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "traffic.hpp"

namespace pjrt {

// An argument struct, followed by more space. All bytes are zero. The structs of newer plugins have more fields at the
// end than those of our header, and these plugins reject smaller structs. Zero means that the caller does not use a
// field.
template <typename T>
class Args {
public:
    Args() { known_.struct_size = sizeof *this; }
    T *operator->() { return &known_; }
    T *get() { return &known_; }

private:
    T known_{};
    std::size_t newer_[16] = {};
};

inline void check(const PJRT_Api *api, PJRT_Error *error) {
    if (error == nullptr) return;
    Args<PJRT_Error_Message_Args> message;
    message->error = error;
    api->PJRT_Error_Message(message.get());
    const std::string text(message->message, message->message_size);
    Args<PJRT_Error_Destroy_Args> destroy;
    destroy->error = error;
    api->PJRT_Error_Destroy(destroy.get());
    throw std::runtime_error(text);
}

// Owns an object of the plugin. `Destroy` is the function that frees it. `Field` is the argument of `Destroy` that
// holds the object.
template <auto Destroy, auto Field>
class Handle;

template <typename Function, Function PJRT_Api::*Destroy, typename Struct, typename T, T *Struct::*Field>
class Handle<Destroy, Field> {
public:
    Handle() = default;
    Handle(const PJRT_Api *api, T *object) : api_(api), object_(object) {}
    Handle(Handle &&other) noexcept : api_(other.api_), object_(std::exchange(other.object_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        std::swap(api_, other.api_);
        std::swap(object_, other.object_);
        return *this;
    }
    ~Handle() {
        if (object_ == nullptr) return;
        Args<Struct> args;
        args.get()->*Field = object_;
        try {
            check(api_, (api_->*Destroy)(args.get()));
        } catch (const std::exception &) {
            // A destructor cannot report the error. There is nothing else to free.
        }
    }

    T *get() const { return object_; }
    const PJRT_Api *api() const { return api_; }

private:
    const PJRT_Api *api_ = nullptr;
    T *object_ = nullptr;
};

// The completion of an asynchronous operation.
class Event : public Handle<&PJRT_Api::PJRT_Event_Destroy, &PJRT_Event_Destroy_Args::event> {
public:
    using Handle::Handle;

    // Waits for the operation, and throws if it failed.
    void wait() const {
        Args<PJRT_Event_Await_Args> args;
        args->event = get();
        check(api(), api()->PJRT_Event_Await(args.get()));
    }

    // Calls `function` once, when the operation has ended or failed. The function can run on a thread of the plugin,
    // also after this object is destroyed. It must not throw.
    void on_ready(std::function<void()> function) const {
        struct Call {
            const PJRT_Api *api;
            std::function<void()> function;
        };
        const auto run = [](PJRT_Error *error, void *user) {
            const std::unique_ptr<Call> call(static_cast<Call *>(user));
            if (error != nullptr) {
                Args<PJRT_Error_Destroy_Args> destroy;
                destroy->error = error;
                call->api->PJRT_Error_Destroy(destroy.get());
            }
            call->function();
        };
        auto call = std::make_unique<Call>(Call{api(), std::move(function)});
        Args<PJRT_Event_OnReady_Args> args;
        args->event = get();
        args->callback = run;
        args->user_arg = call.get();
        check(api(), api()->PJRT_Event_OnReady(args.get()));
        call.release();
    }
};

// An array on the device.
class Buffer : public Handle<&PJRT_Api::PJRT_Buffer_Destroy, &PJRT_Buffer_Destroy_Args::buffer> {
public:
    using Handle::Handle;

    // Returns an event that occurs when the device has computed the array.
    Event ready() const {
        Args<PJRT_Buffer_ReadyEvent_Args> args;
        args->buffer = get();
        check(api(), api()->PJRT_Buffer_ReadyEvent(args.get()));
        return Event(api(), args->event);
    }

    // Starts a copy to the host. `target` must stay valid until the event occurs.
    Event copy_to_host(void *target, std::size_t bytes) const {
        Args<PJRT_Buffer_ToHostBuffer_Args> args;
        args->src = get();
        args->dst = target;
        args->dst_size = bytes;
        check(api(), api()->PJRT_Buffer_ToHostBuffer(args.get()));
        return Event(api(), args->event);
    }
};

// A compiled program for one device.
class Executable : public Handle<&PJRT_Api::PJRT_LoadedExecutable_Destroy,
                                 &PJRT_LoadedExecutable_Destroy_Args::executable> {
public:
    using Handle::Handle;

    // Starts an execution. Inputs that the program donates are no longer usable.
    std::vector<Buffer> execute(const std::vector<PJRT_Buffer *> &inputs, std::size_t num_outputs) const {
        std::vector<PJRT_Buffer *> outputs(num_outputs, nullptr);
        PJRT_Buffer *const *const arguments = inputs.data();
        PJRT_Buffer **const results = outputs.data();
        Args<PJRT_ExecuteOptions> options;
        Args<PJRT_LoadedExecutable_Execute_Args> args;
        args->executable = get();
        args->options = options.get();
        args->argument_lists = &arguments;
        args->num_devices = 1;
        args->num_args = inputs.size();
        args->output_lists = &results;
        check(api(), api()->PJRT_LoadedExecutable_Execute(args.get()));
        std::vector<Buffer> owned;
        for (PJRT_Buffer *output : outputs) owned.emplace_back(api(), output);
        return owned;
    }
};

// Loads a plugin, and returns its function table with counted transfers. The plugin stays loaded.
inline const PJRT_Api *load_plugin(const std::string &path) {
    void *const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw std::runtime_error(std::string("cannot load the plugin: ") + dlerror());
    using GetPjrtApi = const PJRT_Api *();
    const auto get = reinterpret_cast<GetPjrtApi *>(dlsym(library, "GetPjrtApi"));
    const PJRT_Api *const plugin = get == nullptr ? nullptr : get();
    if (plugin == nullptr) throw std::runtime_error(path + " is not a PJRT plugin: it has no GetPjrtApi");
    const PJRT_Api *const api = counting_table(plugin);
    Args<PJRT_Plugin_Initialize_Args> args;
    check(api, api->PJRT_Plugin_Initialize(args.get()));
    return api;
}

// A client, and its first device.
class Client : public Handle<&PJRT_Api::PJRT_Client_Destroy, &PJRT_Client_Destroy_Args::client> {
public:
    explicit Client(const PJRT_Api *api) : Handle(api, create(api)) {
        Args<PJRT_Client_AddressableDevices_Args> args;
        args->client = get();
        check(api, api->PJRT_Client_AddressableDevices(args.get()));
        if (args->num_addressable_devices == 0) throw std::runtime_error("the plugin has no device");
        device_ = args->addressable_devices[0];
    }

    std::string platform() const {
        Args<PJRT_Client_PlatformName_Args> args;
        args->client = get();
        check(api(), api()->PJRT_Client_PlatformName(args.get()));
        return std::string(args->platform_name, args->platform_name_size);
    }

    std::string device_kind() const {
        Args<PJRT_Device_GetDescription_Args> description;
        description->device = device_;
        check(api(), api()->PJRT_Device_GetDescription(description.get()));
        Args<PJRT_DeviceDescription_Kind_Args> kind;
        kind->device_description = description->device_description;
        check(api(), api()->PJRT_DeviceDescription_Kind(kind.get()));
        return std::string(kind->device_kind, kind->device_kind_size);
    }

    // Compiles StableHLO text for the first device.
    Executable compile(const std::string &text) const {
        // A serialized CompileOptionsProto. Its executable_build_options (field 3) contain: device_ordinal (1) = -1,
        // which means unset; num_replicas (4) = 1; num_partitions (5) = 1.
        static const char compile_options[] =
            "\x1a\x0f\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x20\x01\x28\x01";
        static const char format[] = "mlir";
        std::string code = text;
        Args<PJRT_Program> program;
        program->code = code.data();
        program->code_size = code.size();
        program->format = format;
        program->format_size = sizeof format - 1;
        Args<PJRT_Client_Compile_Args> args;
        args->client = get();
        args->program = program.get();
        args->compile_options = compile_options;
        args->compile_options_size = sizeof compile_options - 1;
        check(api(), api()->PJRT_Client_Compile(args.get()));
        return Executable(api(), args->executable);
    }

    // Copies an array to the device. `data` may be freed when the function returns.
    Buffer upload(const void *data, PJRT_Buffer_Type type,
                  const std::vector<std::int64_t> &dimensions) const {
        Args<PJRT_Client_BufferFromHostBuffer_Args> args;
        args->client = get();
        args->data = data;
        args->type = type;
        args->dims = dimensions.data();
        args->num_dims = dimensions.size();
        args->host_buffer_semantics = PJRT_HostBufferSemantics_kImmutableOnlyDuringCall;
        args->device = device_;
        check(api(), api()->PJRT_Client_BufferFromHostBuffer(args.get()));
        const Event copied(api(), args->done_with_host_buffer);
        return Buffer(api(), args->buffer);
    }

    Buffer upload(const std::vector<std::int32_t> &values) const {
        return upload(values.data(), PJRT_Buffer_Type_S32, {static_cast<std::int64_t>(values.size())});
    }

private:
    static PJRT_Client *create(const PJRT_Api *api) {
        Args<PJRT_Client_Create_Args> args;
        check(api, api->PJRT_Client_Create(args.get()));
        return args->client;
    }

    PJRT_Device *device_ = nullptr;
};

}  // namespace pjrt
