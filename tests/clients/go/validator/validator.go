// Package validator stands for gopkg.in/validator.v2, of which Debian has a version from before generated code used it: that
// one refuses a value that is no struct. The gateway checks what the client then does not.
package validator

// Validate takes every value.
func Validate(any) error { return nil }
