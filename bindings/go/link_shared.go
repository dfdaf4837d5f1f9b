//go:build !nucleus_static

package nucleus

// #cgo pkg-config: nucleus
import "C"
