package nucleus

/*
#include <nucleus.h>
*/
import "C"

// CompileAheadOptions say what to compile, for which device, and where to write it. Set at least OutputDir, RowCounts
// and Vocab.
type CompileAheadOptions struct {
	// PluginPath is the path of the PJRT plugin's shared library. Default: the environment variable NUCLEUS_PJRT_PLUGIN.
	PluginPath string
	// Topology is the plugin's name for the devices to compile for, for example `v5e:2x2`. Default: the devices of
	// this host.
	Topology string
	// PluginOptions are options for the topology, or for the client if Topology is empty.
	PluginOptions []ClientOption
	// OutputDir is the output directory. It is created if it does not exist.
	OutputDir string
	// RowCounts are the numbers of rows of the calls to compile for.
	RowCounts []int
	// Vocab is the number of elements per row, 1 to 16777216.
	Vocab int
	// MaxK is the MaxK of the samplers that will load the programs. Default: 128.
	MaxK int
	// DType, Path, KeepTies and DebugArrays are the values that the calls will have.
	DType       DType
	Path        Path
	KeepTies    bool
	DebugArrays DebugBits
	// SmallerRowCounts makes the function also compile for smaller numbers of rows, like Prewarm.
	SmallerRowCounts bool
	// OutputDirCapacity is the largest size of OutputDir in bytes. Default: unlimited.
	OutputDirCapacity uint64
	// RowBuckets are the RowBuckets of the samplers that will load the programs. Default: the powers of two to 128.
	RowBuckets []int
	// Logits is the place of the logits of the calls.
	Logits LogitsPlace
	// HasMiddleDimension has the meaning that it has in PrewarmSpec.
	HasMiddleDimension bool
}

// CompileAhead compiles the programs that calls will need and writes each one to a file. A sampler whose ProgramDir
// is the output directory loads the programs instead of compiling them. It returns the number of files written. It
// can take minutes, and cannot be cancelled.
func CompileAhead(options *CompileAheadOptions) (int, error) {
	var a arena
	defer a.free()
	c := &C.nuc_compile_ahead_options{
		struct_size:          C.sizeof_nuc_compile_ahead_options,
		plugin_path:          a.text("plugin_path", options.PluginPath),
		topology:             a.text("topology", options.Topology),
		plugin_options:       a.clientOptions("plugin_options", options.PluginOptions),
		num_plugin_options:   C.size_t(len(options.PluginOptions)),
		output_dir:           a.text("output_dir", options.OutputDir),
		row_counts:           a.sizes("row_counts", options.RowCounts),
		num_row_counts:       C.size_t(len(options.RowCounts)),
		vocab:                a.size("vocab", options.Vocab),
		max_k:                a.size("max_k", options.MaxK),
		dtype:                C.nuc_dtype(options.DType),
		path:                 C.nuc_path(options.Path),
		keep_ties:            flag(options.KeepTies),
		debug_arrays:         C.uint32_t(options.DebugArrays),
		smaller_row_counts:   flag(options.SmallerRowCounts),
		output_dir_capacity:  C.uint64_t(options.OutputDirCapacity),
		row_buckets:          a.sizes("row_buckets", options.RowBuckets),
		num_row_buckets:      C.size_t(len(options.RowBuckets)),
		logits:               C.nuc_logits_place(options.Logits),
		has_middle_dimension: flag(options.HasMiddleDimension),
	}
	if a.err != nil {
		return 0, a.err
	}
	var written C.size_t
	err := call(func(e *C.nuc_error) C.nuc_status { return C.nuc_compile_ahead(c, &written, e) })
	return int(written), err
}
