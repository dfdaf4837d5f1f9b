//go:build nucleus_static

package nucleus

// #cgo LDFLAGS: -l:libnucleus.a -lpthread -ldl -lm
import "C"
