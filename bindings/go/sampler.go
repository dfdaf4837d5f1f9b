package nucleus

/*
#include <nucleus.h>
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// A Backend is the backend of a sampler.
type Backend int32

const (
	// BackendAuto uses a PJRT plugin if Options.PluginPath or the environment variable NUCLEUS_PJRT_PLUGIN names one.
	// Otherwise it uses the built-in backend.
	BackendAuto Backend = C.NUC_BACKEND_AUTO
	// BackendBuiltin uses the multi-threaded SIMD code of the library. It runs on the CPU and needs no plugin.
	BackendBuiltin Backend = C.NUC_BACKEND_BUILTIN
	// BackendPJRT uses a PJRT plugin. Creating the sampler fails if no plugin is named.
	BackendPJRT Backend = C.NUC_BACKEND_PJRT
)

// A ClientOption is an option for a plugin. Use the names and types that the plugin documents: some plugins end the
// process if an option has the wrong type.
type ClientOption struct {
	Name string
	// Value is a string, int, int64, float32 or bool.
	Value any
}

// Options are the options of New. The zero value of each field selects its default.
type Options struct {
	Backend Backend
	// DeviceIndex is the index of the device among the client's addressable devices, counted from 0.
	DeviceIndex int
	// PluginPath is the path of a PJRT plugin's shared library. Default: the environment variable NUCLEUS_PJRT_PLUGIN.
	PluginPath string
	// ClientOptions are options for the plugin's client.
	ClientOptions []ClientOption
	// MaxK is the number of slots of the bounded path, 1 to 1024. Default: 128.
	MaxK int
	// CacheCapacity is the largest number of compiled programs in memory. Default: 64.
	CacheCapacity int
	// NumThreads is the number of threads of the built-in backend. 1: only the calling thread. Default: one per core.
	NumThreads int
	// ProgramDir is a directory of compiled programs. Default: the environment variable NUCLEUS_PROGRAM_DIR. Write
	// access to this directory is equivalent to code execution in this process.
	ProgramDir string
	// WritePrograms makes the sampler write each program that it compiles to ProgramDir.
	WritePrograms bool
	// PJRTAPI and PJRTClient are a PJRT plugin's table and a client of the caller, PJRT_Api * and PJRT_Client *. The
	// sampler uses the client and does not destroy it. Set both or none.
	PJRTAPI, PJRTClient unsafe.Pointer
	// ProgramDirCapacity is the largest size of ProgramDir in bytes. Default: unlimited.
	ProgramDirCapacity uint64
	// RowBuckets are the numbers of rows that programs are compiled for, ascending. Default: the powers of two to 128.
	RowBuckets []int
}

// A Sampler is a backend, its threads or its device, and the programs compiled for it. Any number of goroutines may use
// a sampler at the same time. Create it with New.
type Sampler struct {
	lifetime
	c       *C.nuc_sampler
	maxK    int
	cleanup runtime.Cleanup
}

// The dynamic loader compares the number of the binary interface, because it is part of the library's name. This check
// covers a library that was linked statically or renamed.
var checkABI = sync.OnceValue(func() error {
	if found := C.nuc_abi_version(); found != C.NUC_ABI_VERSION {
		return &Error{Internal, "", -1, fmt.Sprintf("the library has version %d of the binary interface, "+
			"but this program was compiled for version %d", found, C.NUC_ABI_VERSION)}
	}
	return nil
})

// New creates a sampler. The caller calls Close. With a plugin it loads the plugin's library, which stays loaded until
// the process ends, and creates a client. This can take seconds. If options is nil, every option has its
// default.
func New(options *Options) (*Sampler, error) {
	if err := checkABI(); err != nil {
		return nil, err
	}
	if options == nil {
		options = &Options{}
	}
	var a arena
	defer a.free()
	if options.DeviceIndex != int(int32(options.DeviceIndex)) {
		a.fail(invalid("device_index", "is %d; it must be an int32", options.DeviceIndex))
	}
	c := &C.nuc_sampler_options{
		struct_size:          C.sizeof_nuc_sampler_options,
		backend:              C.nuc_backend(options.Backend),
		device_index:         C.int32_t(options.DeviceIndex),
		plugin_path:          a.text("plugin_path", options.PluginPath),
		client_options:       a.clientOptions("client_options", options.ClientOptions),
		num_client_options:   C.size_t(len(options.ClientOptions)),
		max_k:                a.size("max_k", options.MaxK),
		cache_capacity:       a.size("cache_capacity", options.CacheCapacity),
		num_threads:          a.size("num_threads", options.NumThreads),
		program_dir:          a.text("program_dir", options.ProgramDir),
		write_programs:       flag(options.WritePrograms),
		pjrt_api:             options.PJRTAPI,
		pjrt_client:          options.PJRTClient,
		program_dir_capacity: C.uint64_t(options.ProgramDirCapacity),
		row_buckets:          a.sizes("row_buckets", options.RowBuckets),
		num_row_buckets:      C.size_t(len(options.RowBuckets)),
	}
	if a.err != nil {
		return nil, a.err
	}
	s := &Sampler{}
	err := call(func(e *C.nuc_error) C.nuc_status { return C.nuc_sampler_create(c, &s.c, e) })
	if err != nil {
		return nil, err
	}
	s.init()
	s.cleanup = runtime.AddCleanup(s, destroySampler, s.c)
	info, err := s.Info()
	if err != nil {
		s.Close()
		return nil, err
	}
	s.maxK = info.MaxK
	return s, nil
}

// Close frees the sampler. It waits for the calls that use the sampler. Parameters, calls and prewarms of the sampler
// stay valid. A second Close has no effect. Close must not be called in the callback of SetLog.
func (s *Sampler) Close() error {
	return s.close(func() error {
		s.cleanup.Stop()
		return call(func(e *C.nuc_error) C.nuc_status { return C.nuc_sampler_destroy(s.c, e) })
	})
}

// MaxK returns the number of slots of the bounded path.
func (s *Sampler) MaxK() int { return s.maxK }

// destroySampler is the cleanup of a sampler that was not closed. Destroying can wait for threads of the plugin, and
// cleanups share one goroutine, so it runs in a new one.
func destroySampler(c *C.nuc_sampler) { go C.nuc_sampler_destroy(c, nil) }

// use runs a function of the library with the sampler.
func (s *Sampler) use(function func(*C.nuc_sampler, *C.nuc_error) C.nuc_status) error {
	if !s.acquire() {
		return errClosed("sampler")
	}
	defer s.release()
	return call(func(e *C.nuc_error) C.nuc_status { return function(s.c, e) })
}

func (a *arena) clientOptions(argument string, options []ClientOption) *C.nuc_client_option {
	if len(options) == 0 {
		return nil
	}
	copied := array[C.nuc_client_option](a, len(options))
	for i, option := range options {
		c := &copied[i]
		c.name = a.text(argument, option.Name)
		switch value := option.Value.(type) {
		case string:
			c._type = C.NUC_OPTION_STRING
			// Here an empty string is a value. It must not become null.
			c.string_value = a.text(argument, value)
			if value == "" {
				c.string_value = &array[C.char](a, 1)[0]
			}
		case int:
			c._type = C.NUC_OPTION_INT64
			c.int64_value = C.int64_t(value)
		case int64:
			c._type = C.NUC_OPTION_INT64
			c.int64_value = C.int64_t(value)
		case float32:
			c._type = C.NUC_OPTION_FLOAT
			c.float_value = C.float(value)
		case bool:
			c._type = C.NUC_OPTION_BOOL
			c.int64_value = C.int64_t(flag(value))
		default:
			a.fail(invalid(argument, "has the option %q of type %T; it must be string, int, int64, float32 or bool",
				option.Name, value))
		}
	}
	return &copied[0]
}
