// Package tokens finds the token ids of a request's prompt: in the request itself, in its cache, or by asking an
// engine of the pool.
//
// It never guesses. What an engine would tokenize differently from POST /tokenize (images, audio, embeddings, members
// that it does not know) and what cannot be had in time is an UnknownError. It keeps no text: its cache holds token ids
// under hashes, and its errors hold no byte of a prompt, nor of an engine's answer, which may quote one.
package tokens

import "fmt"

// Reason says why the tokens of a prompt are unknown. There are few, so that a metric can carry them.
type Reason string

// The reasons.
const (
	NoPrompt  Reason = "no prompt"             // none was sent, or it is empty
	TooLarge  Reason = "prompt too large"      // over MaxPrompt
	Malformed Reason = "malformed prompt"      // not what the API allows
	NonText   Reason = "content is not text"   // images, audio, embeddings
	Field     Reason = "field not supported"   // a member that may change the prompt in ways unknown here
	Kind      Reason = "API not supported"     // neither completions nor chat
	NoEngine  Reason = "no engine to tokenize" // the pool has none
	Late      Reason = "tokenizer too slow"    // no answer within the deadline
	Busy      Reason = "tokenizer busy"        // no turn within the deadline
	Refused   Reason = "engine refused prompt" // status 400 or 422: it would refuse the request too
	Failed    Reason = "tokenizer failed"      // an error, or an answer that makes no sense
)

// UnknownError is the error of a prompt whose tokens cannot be had.
type UnknownError struct {
	Reason Reason
	Cause  error // nil, or what happened; without prompt text
}

// Error returns the reason and the cause.
func (u *UnknownError) Error() string {
	if u.Cause == nil {
		return string(u.Reason)
	}
	return fmt.Sprintf("%s: %v", u.Reason, u.Cause)
}

// Unwrap returns the cause.
func (u *UnknownError) Unwrap() error { return u.Cause }

func unknown(r Reason) *UnknownError { return &UnknownError{Reason: r} }
