package router

import (
	"errors"
	"net/http"
	"time"

	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/door"
)

const retryFull = 5 * time.Second // for what is full to have room

// Codes of refusals, and what the reason header says of each.
const (
	codeNoEngine   = "no_engine"
	codeQueueFull  = "queue_full"
	codeQueueTTL   = "queue_timeout"
	codeOverBudget = "rate_limit_exceeded"
	codeNoMemory   = "out_of_memory"

	reasonHeader = "X-Llm-D-Request-Dropped-Reason"
)

// droppedBecause is the reason header of a refusal, in llm-d's words where it has one; empty for other errors.
func droppedBecause(code string) string {
	switch code {
	case codeNoEngine:
		return "rejected-no-endpoints"
	case codeQueueFull:
		return "rejected-saturated"
	case codeQueueTTL:
		return "rejected-ttl-expired"
	case codeOverBudget:
		return "rejected-over-budget"
	case codeNoMemory:
		return "rejected-body-bytes"
	}
	return ""
}

// notLetIn is what a client is told when the door does not let its request in; nil of nil.
func (rt *router) notLetIn(err error) *openai.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, door.ErrFull):
		return &openai.Error{Status: http.StatusTooManyRequests, Code: codeQueueFull, RetryAfter: retryFull, Message: err.Error()}
	case errors.Is(err, door.ErrTooLong):
		return &openai.Error{Status: http.StatusTooManyRequests, Code: codeQueueTTL, RetryAfter: retryFull, Message: err.Error()}
	}
	return &openai.Error{Status: http.StatusServiceUnavailable, Code: codeNoEngine, RetryAfter: rt.cfg.Hold, Message: err.Error()}
}
