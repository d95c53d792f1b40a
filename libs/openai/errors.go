package openai

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Error is the API's error object with its HTTP status. Type follows from the status when it is empty.
type Error struct {
	Status     int
	Message    string
	Type       string
	Param      string        // member at fault; null when empty
	Code       string        // for programs; null when empty
	RetryAfter time.Duration // header Retry-After when positive, in whole seconds, rounded up
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

type errorObject struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// Append appends {"error":{"message","type","param","code"}} to dst.
func (e *Error) Append(dst []byte) []byte {
	o := errorObject{Message: e.Message, Type: e.Type}
	if o.Type == "" {
		o.Type = typeOf(e.Status)
	}
	if e.Param != "" {
		o.Param = &e.Param
	}
	if e.Code != "" {
		o.Code = &e.Code
	}
	body, _ := json.Marshal(map[string]errorObject{"error": o}) // strings only: cannot fail
	return append(dst, body...)
}

// typeOf names the kind of error as OpenAI's own SDKs expect it.
func typeOf(status int) string {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "authentication_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status >= 400 && status < 500:
		return "invalid_request_error"
	case status == http.StatusServiceUnavailable:
		return "service_unavailable_error"
	}
	return "server_error"
}

// Write answers a request whose response has not begun.
func (e *Error) Write(w http.ResponseWriter) {
	body := e.Append(nil)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // the client may be gone; nothing is left to tell it
}

// Event returns the error as a server-sent event, for a stream that has begun.
func (e *Error) Event() []byte {
	return append(e.Append([]byte("data: ")), "\n\n"...)
}
