package nucleus_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The package uses every function and every constant of the header, and every field of its structs. If the header
// contains one that the package does not use, this test fails.
func TestBindingIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../include/nucleus.layout.json")
	if err != nil {
		t.Fatal(err)
	}
	type named struct{ Name string }
	var layout struct {
		Functions []string
		Constants []named
		Enums     []struct{ Values []named }
		Structs   []struct {
			Name   string
			Fields []named
		}
	}
	if err := json.Unmarshal(text, &layout); err != nil {
		t.Fatal(err)
	}
	// The fields `reserved` stay zero. The field `code` repeats the status that a function returns. The whole message
	// replaces `message`, and its length is not needed because it ends with NUL.
	unused := map[string]bool{"reserved": true, "code": true, "message": true, "message_length": true}
	used := map[string]bool{}
	for _, pattern := range []string{"*.go", "*.c"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if regexp.MustCompile(`_test\.go$`).MatchString(file) {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code := regexp.MustCompile(`(?m)^\s*//.*$`).ReplaceAll(source, nil)
			for _, name := range regexp.MustCompile(`\w+`).FindAllString(string(code), -1) {
				used[name] = true
			}
		}
	}
	count := 0
	check := func(name string) {
		count++
		if !used[name] {
			t.Errorf("the package does not use %s", name)
		}
	}
	for _, function := range layout.Functions {
		check(function)
	}
	for _, constant := range layout.Constants {
		check(constant.Name)
	}
	for _, enumeration := range layout.Enums {
		for _, value := range enumeration.Values {
			check(value.Name)
		}
	}
	for _, structure := range layout.Structs {
		for _, field := range structure.Fields {
			// cgo renames the field `type`.
			if field.Name == "type" {
				field.Name = "_type"
			}
			if !unused[field.Name] {
				check(field.Name)
			}
		}
	}
	if count < 200 {
		t.Errorf("the layout file has only %d names", count)
	}
}
