package openai

import "bytes"

// maxHeld bounds the part of one event that a Stream keeps until its end; a longer event is no usage chunk and passes.
const maxHeld = 64 << 10

// Usage is what an engine counted for one request.
type Usage struct {
	Prompt, Completion int
	Cached             int  // prompt tokens that the engine found in its prefix cache
	HasCached          bool // the engine reported Cached; absent is no report
}

// Stream watches the bytes of one server-sent event stream, in whatever pieces they arrive. It parses only chunks that
// carry usage. Whole events pass as they came; an event cut by a read waits for its end, so that the usage chunk that
// the client did not ask for can be withheld. The zero value withholds nothing.
type Stream struct {
	Withhold bool // keep back the extra usage chunk: no choices, and usage
	// Prefill is the usage of the engine that computed the prompt for this one; its cached tokens replace this one's.
	Prefill  *Usage
	Usage    Usage // the last usage seen
	HasUsage bool
	Done     bool // [DONE] was seen
	Failed   bool // the engine sent an error event
	Chunks   int  // data events other than [DONE], errors and the extra usage chunk: about one a token

	held  []byte // the event that has begun but not ended
	long  bool   // the event under way was too long to hold; it passes unread
	end   int    // newlines just before the next byte: two end an event
	body  Body
	fixed []byte // the event just read, with its usage corrected; empty where it stays as it came
}

// Feed takes the next bytes and hands on what may pass, in order. The slices are valid until the next call.
// It returns emit's first error.
func (s *Stream) Feed(p []byte, emit func([]byte) error) error {
	start, from := 0, 0 // p[start:] is not yet handed on, p[from:] is the event under way
	for {
		n := s.eventEnd(p[from:])
		if n < 0 {
			break
		}
		event := p[from : from+n]
		if len(s.held) > 0 {
			s.held = append(s.held, event...)
			event = s.held
		}
		s.fixed = s.fixed[:0]
		pass := s.long || s.read(event)
		s.long = false
		from += n
		switch {
		case len(s.held) > 0:
			s.held, start = s.held[:0], from
			if len(s.fixed) > 0 {
				event = s.fixed
			}
			if pass {
				if err := emit(event); err != nil {
					return err
				}
			}
		case !pass, len(s.fixed) > 0:
			if err := emitSome(p[start:from-n], emit); err != nil {
				return err
			}
			start = from
			if pass {
				if err := emit(s.fixed); err != nil {
					return err
				}
			}
		}
	}
	return s.rest(p[start:from], p[from:], emit)
}

// rest hands on whole events and holds, or if it is too long passes, the one that has not ended.
func (s *Stream) rest(whole, open []byte, emit func([]byte) error) error {
	if err := emitSome(whole, emit); err != nil {
		return err
	}
	if !s.long && len(s.held)+len(open) <= maxHeld {
		s.held = append(s.held, open...)
		return nil
	}
	s.long = true
	if err := s.Flush(emit); err != nil {
		return err
	}
	return emitSome(open, emit)
}

// Flush hands on what is held, at the end of the stream.
func (s *Stream) Flush(emit func([]byte) error) error {
	held := s.held
	s.held = s.held[:0]
	return emitSome(held, emit)
}

// Drop forgets the event under way, whose end will not come. It says whether a part of it has passed: what follows then
// needs a blank line before it.
func (s *Stream) Drop() (passed bool) {
	passed = s.long
	s.held, s.long, s.end = s.held[:0], false, 0
	return passed
}

func emitSome(p []byte, emit func([]byte) error) error {
	if len(p) == 0 {
		return nil
	}
	return emit(p)
}

// eventEnd returns how many bytes of p belong to the event under way, its blank line included; -1 if it goes on.
func (s *Stream) eventEnd(p []byte) int {
	i := 0
	for i < len(p) {
		switch {
		case p[i] == '\n':
			s.end++
			i++
			if s.end == 2 {
				s.end = 0
				return i
			}
		case p[i] == '\r': // \r\n ends a line too
			i++
		default:
			s.end = 0
			n := bytes.IndexByte(p[i:], '\n')
			if n < 0 {
				return -1
			}
			i += n
		}
	}
	return -1
}

var (
	dataPrefix  = []byte("data:")
	doneMark    = []byte("[DONE]")
	usageKey    = []byte(`"usage"`)
	errorPrefix = []byte(`{"error"`)
)

// read looks at one whole event and says whether it passes.
func (s *Stream) read(event []byte) (pass bool) {
	data, ok := bytes.CutPrefix(event, dataPrefix)
	if !ok {
		return true
	}
	data = bytes.TrimSpace(data)
	switch {
	case bytes.Equal(data, doneMark):
		s.Done = true
		return true
	case bytes.HasPrefix(data, errorPrefix):
		s.Failed = true
		return true
	case !bytes.Contains(data, usageKey):
		s.Chunks++
		return true
	}
	usage, extra := s.usageChunk(data)
	if usage != nil {
		s.Usage, s.HasUsage = *usage, true
		s.correct(event, data)
	}
	if !extra {
		s.Chunks++
	}
	return !(extra && s.Withhold)
}

func (s *Stream) usageChunk(data []byte) (u *Usage, extra bool) {
	if s.body.Scan(data) != nil {
		return nil, false
	}
	u, ok := ReadUsage(&s.body)
	if !ok {
		return nil, false
	}
	choices, found := s.body.Find("choices")
	return u, found && choices.Kind == Array && IsEmpty(data[choices.Start:choices.End])
}

// mostTokens is more than any request has: counts beyond are none.
const mostTokens = 1 << 40

// ReadUsage reads the usage member of a scanned response or chunk; false when there is none, or none that can be true.
// Cached tokens below 0 or above the prompt's are no report.
func ReadUsage(b *Body) (*Usage, bool) {
	m, ok := b.Find("usage")
	if !ok || m.Kind != Object {
		return nil, false
	}
	var room [8]Member
	in := Body{Members: room[:0]}
	if in.Scan(b.Bytes[m.Start:m.End]) != nil {
		return nil, false
	}
	u := new(Usage)
	ok = in.count("prompt_tokens", &u.Prompt) && in.count("completion_tokens", &u.Completion)
	details, given := in.Find("prompt_tokens_details")
	if !ok || given && details.Kind != Object && details.Kind != Null {
		return nil, false
	}
	cached := -1
	if given && details.Kind == Object {
		var room [8]Member
		within := Body{Members: room[:0]}
		if within.Scan(in.Bytes[details.Start:details.End]) != nil || !within.count("cached_tokens", &cached) {
			return nil, false
		}
	}
	if min(u.Prompt, u.Completion) < 0 || max(u.Prompt, u.Completion) > mostTokens {
		return nil, false
	}
	if cached >= 0 && cached <= u.Prompt {
		u.Cached, u.HasCached = cached, true
	}
	return u, true
}

// count reads a member that must be a whole number or null where it is there; null and absence leave n.
func (b *Body) count(name string, n *int) bool {
	m, ok := b.Find(name)
	if !ok || m.Kind == Null {
		return true
	}
	if m.Kind != Number {
		return false
	}
	value, err := ReadInt(b.Bytes[m.Start:m.End])
	*n = int(value)
	return err == nil
}
