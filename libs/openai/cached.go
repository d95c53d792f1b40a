package openai

import "strconv"

// WithCached returns the scanned response or chunk with the cached tokens of prefill in its usage, in a slice of its own:
// where one engine computes the prompt and another decodes, the second counts all that it was handed as cached. Where
// prefill does not say, nor does the result: its prompt_tokens_details are null. Nil where there is no such count to
// replace. All other bytes stay as they are.
func WithCached(b *Body, prefill *Usage) []byte {
	m, ok := b.Find("usage")
	if !ok || m.Kind != Object {
		return nil
	}
	var usage, details Body
	if usage.Scan(b.Bytes[m.Start:m.End]) != nil || details.Scan(usage.Value("prompt_tokens_details")) != nil {
		return nil
	}
	if details.Value("cached_tokens") == nil {
		return nil
	}
	value := []byte("null")
	if prefill.HasCached {
		p := NewPatch(&details)
		p.Set("cached_tokens", strconv.AppendInt(nil, int64(prefill.Cached), 10))
		value = p.Append(nil)
	}
	inner := NewPatch(&usage)
	inner.Set("prompt_tokens_details", value)
	outer := NewPatch(b)
	outer.Set("usage", inner.Append(nil))
	return outer.Append(nil)
}

// correct replaces the cached tokens in an event whose data is in s.body, and keeps the result in s.fixed.
func (s *Stream) correct(event, data []byte) {
	if s.Prefill == nil {
		return
	}
	s.Usage.Cached, s.Usage.HasCached = s.Prefill.Cached, s.Prefill.HasCached
	fixed := WithCached(&s.body, s.Prefill)
	if fixed == nil {
		return
	}
	at := cap(event) - cap(data) // data is a part of event
	s.fixed = append(append(append(s.fixed[:0], event[:at]...), fixed...), event[at+len(data):]...)
}
