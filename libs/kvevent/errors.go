package kvevent

import (
	"errors"
	"fmt"
)

var (
	// ErrBatch is what Decode returns: the outer batch is unreadable and no event could be found in it.
	ErrBatch = errors.New("kvevent: unreadable batch")
	// ErrTruncated marks an event that claims more than the payload holds; what follows it in the batch is lost.
	ErrTruncated = errors.New("kvevent: payload ends too early")
	// ErrShape marks an event with a field of another type than vLLM's, or without a field it cannot do without.
	ErrShape = errors.New("kvevent: unexpected shape")
	// ErrLimit marks an event that was refused because the batch holds more than its Limits.
	ErrLimit = errors.New("kvevent: batch over its limits")
)

// shapeError says what was expected and which msgpack code was found. It never holds content.
type shapeError struct {
	want string
	code byte
}

func (e shapeError) Error() string {
	return fmt.Sprintf("%v: want %s, found msgpack code 0x%02x", ErrShape, e.want, e.code)
}

func (e shapeError) Unwrap() error { return ErrShape }

func (c *cursor) unexpected(want string) error {
	if c.left() == 0 {
		return ErrTruncated
	}
	return shapeError{want, c.peek()}
}

// keptErrors is how many reasons a Batch remembers.
const keptErrors = 4

func (b *Batch) fail(err error) {
	b.Bad++
	if len(b.Errs) < keptErrors {
		b.Errs = append(b.Errs, err)
	}
}
