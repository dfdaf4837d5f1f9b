//go:build !test_helper

package nucleus_test

import "testing"

func TestDeviceCalls(t *testing.T) {
	t.Skip("device calls need the build tag test_helper and the library of bindings/testing: run test.sh")
}
