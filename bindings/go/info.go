package nucleus

/*
#include <nucleus.h>
*/
import "C"

import (
	"time"
	"unsafe"
)

// Version returns the version of the loaded library, "major.minor.patch".
func Version() string { return C.GoString(C.nuc_version()) }

// VersionNumber returns the version of the loaded library as a number: major * 1000000 + minor * 1000 + patch.
func VersionNumber() uint32 { return uint32(C.nuc_version_number()) }

// Info describes a sampler's platform.
type Info struct {
	// PlatformName is `builtin`, or the plugin's name for its platform, for example `cpu`, `cuda` or `tpu`.
	PlatformName string
	// PlatformVersion is the plugin's version string. For the built-in backend: its instruction set and threads.
	PlatformVersion string
	// PJRTAPIMajor and PJRTAPIMinor are the version of the plugin's PJRT C API; 0 on the built-in backend.
	PJRTAPIMajor, PJRTAPIMinor int
	// NumDevices is the number of devices that Options.DeviceIndex can select.
	NumDevices int
	// MaxK is the number of slots of the bounded path.
	MaxK int
	// PJRTAPI and PJRTClient are the plugin's table and the client; nil on the built-in backend. They belong to the
	// sampler, or to the caller who passed the client to New.
	PJRTAPI, PJRTClient unsafe.Pointer
}

// Info returns a description of the sampler's platform.
func (s *Sampler) Info() (Info, error) {
	var info Info
	err := s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		c := &C.nuc_sampler_info{struct_size: C.sizeof_nuc_sampler_info}
		status := C.nuc_sampler_get_info(s, c, e)
		if status == C.NUC_OK {
			// The strings are valid until the sampler is destroyed. So they are copied before the sampler is released.
			info = Info{C.GoString(c.platform_name), C.GoString(c.platform_version), int(c.pjrt_api_major),
				int(c.pjrt_api_minor), int(c.num_devices), int(c.max_k), c.pjrt_api, c.pjrt_client}
		}
		return status
	})
	return info, err
}

// DeviceInfo describes one device of a sampler's client.
type DeviceInfo struct {
	// Description is the plugin's description of the device. Kind is the plugin's name for the kind of device.
	Description, Kind string
	// ID is the plugin's global id of the device.
	ID int
}

// Device returns a description of a device, counted from 0. Info has the number of devices.
func (s *Sampler) Device(index int) (DeviceInfo, error) {
	var device DeviceInfo
	var a arena
	i := a.size("index", index)
	if a.err != nil {
		return device, a.err
	}
	err := s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		c := &C.nuc_device_info{struct_size: C.sizeof_nuc_device_info}
		status := C.nuc_sampler_get_device(s, i, c, e)
		if status == C.NUC_OK {
			device = DeviceInfo{C.GoString(c.description), C.GoString(c.kind), int(c.id)}
		}
		return status
	})
	return device, err
}

// A Latency has the number of calls that were counted, their median and their 99th percentile, within 1.6%.
type Latency struct {
	Count    uint64
	P50, P99 time.Duration
}

// Stats are counters of a sampler since it was created. The built-in backend compiles nothing, so its counters of
// programs stay 0.
type Stats struct {
	// Compiles is the number of programs compiled. CompileTime is the time spent, summed over threads.
	Compiles    uint64
	CompileTime time.Duration
	// Hits is the number of lookups that found a program, or waited while another thread compiled it.
	Hits uint64
	// Evictions is the number of programs evicted because the cache was full.
	Evictions uint64
	// Failures is the number of compilations that failed.
	Failures uint64
	// Programs is the number of programs in memory now. Pinned is how many of them a prewarm compiled or loaded.
	Programs, Pinned uint64
	// Loaded is the number of programs loaded from Options.ProgramDir instead of compiled.
	Loaded uint64
	// NotKept is the number of programs that were compiled for one call and not kept.
	NotKept uint64
	// ProgramFilesEvicted is the number of files that the sampler removed from Options.ProgramDir.
	ProgramFilesEvicted uint64
	// ProgramDirBytes is the size of all programs in Options.ProgramDir.
	ProgramDirBytes uint64
	// Enqueue is the time until the programs of a call are in the queue of the device. Execute is the time from then until
	// the results are on the host. Total is the time of the whole call.
	Enqueue, Execute, Total Latency
}

// Stats returns the current counters of the sampler.
func (s *Sampler) Stats() (Stats, error) {
	c := &C.nuc_sampler_stats{struct_size: C.sizeof_nuc_sampler_stats}
	err := s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		return C.nuc_sampler_get_stats(s, c, e)
	})
	latency := func(count, p50, p99 C.uint64_t) Latency {
		return Latency{uint64(count), time.Duration(p50), time.Duration(p99)}
	}
	return Stats{
		Compiles:            uint64(c.compiles),
		CompileTime:         time.Duration(c.compile_ns),
		Hits:                uint64(c.hits),
		Evictions:           uint64(c.evictions),
		Failures:            uint64(c.failures),
		Programs:            uint64(c.programs),
		Pinned:              uint64(c.pinned),
		Loaded:              uint64(c.loaded),
		NotKept:             uint64(c.not_kept),
		ProgramFilesEvicted: uint64(c.program_files_evicted),
		ProgramDirBytes:     uint64(c.program_dir_bytes),
		Enqueue:             latency(c.enqueue_count, c.enqueue_p50_ns, c.enqueue_p99_ns),
		Execute:             latency(c.execute_count, c.execute_p50_ns, c.execute_p99_ns),
		Total:               latency(c.total_count, c.total_p50_ns, c.total_p99_ns),
	}, err
}
