package bus

import "errors"

var (
	// ErrFenced says that another owner has written to the subject since; claim it again or leave it.
	ErrFenced = errors.New("another owner has written to the subject")
	// ErrStreamReset says that the stream was created anew or ends before the reader's position.
	ErrStreamReset = errors.New("stream was reset")
	// ErrExists says that a key has a value already, or another revision than expected.
	ErrExists = errors.New("key exists")
	// ErrNotFound says that a key or bucket does not exist.
	ErrNotFound = errors.New("not found")
	// ErrFull says that too many messages wait for their acknowledgement; the message was not sent.
	ErrFull = errors.New("too many messages in flight")
)
