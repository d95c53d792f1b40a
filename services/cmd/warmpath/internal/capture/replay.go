package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
)

// replays judges the replies of a replay endpoint against the live messages of the same file, which may stand behind
// them: what was asked is kept until then.
type replays struct {
	messages []message // live, in order
	kept     []kept
}

// message is a batch on the wire.
type message struct {
	topic   []byte
	seq     uint64
	payload []byte
}

type kept struct {
	line  *line
	where at
}

const endOfReplay = ^uint64(0)

func (r *replays) asked(l *line, where at) {
	l.fields = nil
	r.kept = append(r.kept, kept{l, where})
}

// live takes the live messages of the file and judges them by themselves.
func (r *replays) live(l *line) error {
	r.messages = nil
	for i, frames := range l.Live {
		m, err := parseMessage(frames)
		if err != nil {
			return fmt.Errorf("live_messages[%d]: %w", i, err)
		}
		if i > 0 && m.seq != r.messages[i-1].seq+1 {
			return fmt.Errorf("live_messages[%d]: seq %d follows %d", i, m.seq, r.messages[i-1].seq)
		}
		if i > 0 && !bytes.Equal(m.topic, r.messages[0].topic) {
			return fmt.Errorf("live_messages[%d]: another topic", i)
		}
		if err := decodable(m.payload); err != nil {
			return fmt.Errorf("live_messages[%d]: %w", i, err)
		}
		r.messages = append(r.messages, m)
	}
	if len(r.messages) == 0 {
		return errors.New("live_messages: none")
	}
	return nil
}

func parseMessage(frames []string) (message, error) {
	raw, err := unhex(frames)
	if err != nil {
		return message{}, err
	}
	if len(raw) != 3 || len(raw[1]) != 8 {
		return message{}, errors.New("want a topic, 8 bytes of sequence and a payload")
	}
	return message{raw[0], binary.BigEndian.Uint64(raw[1]), raw[2]}, nil
}

// finish judges the replays of the file.
func (r *replays) finish(report func(at, error)) {
	for _, k := range r.kept {
		report(k.where, r.check(k.line))
	}
}

func (r *replays) check(l *line) error {
	if len(r.messages) == 0 {
		return errors.New("no live messages in the file to compare with")
	}
	if l.PublisherTopic != nil && *l.PublisherTopic != string(r.messages[0].topic) {
		return fmt.Errorf("publisher_topic: want %.80q, live messages have %.80q", *l.PublisherTopic, r.messages[0].topic)
	}
	want, err := r.expected(l)
	if err != nil {
		return err
	}
	if len(l.Replies) != len(want) {
		return fmt.Errorf("reply_messages: want %d, got %d", len(want), len(l.Replies))
	}
	parts := 0
	for i := range want {
		if i == 0 {
			parts = len(l.Replies[0])
		}
		if len(l.Replies[i]) != parts {
			return fmt.Errorf("reply_messages[%d]: %d frames after ones of %d", i, len(l.Replies[i]), parts)
		}
		if err := checkReply(l.Replies[i], want[i], l.Socket != "REQ"); err != nil {
			return fmt.Errorf("reply_messages[%d]: %w", i, err)
		}
	}
	if failed := l.ErrorThen != nil; failed != (l.Socket == "REQ") {
		return fmt.Errorf("client_error_after_first_reply: %v on a %s socket", failed, l.Socket)
	}
	return nil
}

// expected are the replies that vLLM gives: every batch that it still keeps from the start that was asked for, then
// the end. The publisher keeps the last buffer_steps batches, and a REQ socket can read one reply only.
func (r *replays) expected(l *line) ([]message, error) {
	start, answered, err := askedStart(l)
	if err != nil || !answered {
		return nil, err
	}
	messages := r.messages
	if l.Buffer != nil && len(messages) > *l.Buffer {
		messages = messages[len(messages)-max(0, *l.Buffer):]
	}
	var want []message
	for _, m := range messages {
		if start.Cmp(new(big.Int).SetUint64(m.seq)) <= 0 {
			want = append(want, m)
		}
	}
	want = append(want, message{seq: endOfReplay})
	if l.Socket == "REQ" {
		want = want[:1]
	}
	return want, nil
}

// askedStart reads the sequence that a request asks for: a big-endian integer of any length, behind an empty frame
// that a REQ socket adds by itself. Requests of another shape are not answered.
func askedStart(l *line) (start *big.Int, answered bool, err error) {
	asked, err := unhex(l.Asked)
	if err != nil {
		return nil, false, fmt.Errorf("request_frames: %w", err)
	}
	switch l.Socket {
	case "REQ":
		asked = append([][]byte{{}}, asked...)
	case "DEALER":
	default:
		return nil, false, fmt.Errorf("client_socket: %.20q", l.Socket)
	}
	if len(asked) != 2 || len(asked[0]) > 0 {
		return nil, false, nil
	}
	return new(big.Int).SetBytes(asked[1]), true, nil
}

// checkReply compares one reply: sequence and payload up to v0.25, with the topic before them since, behind an empty
// frame where the socket shows it.
func checkReply(frames []string, want message, delimiter bool) error {
	raw, err := unhex(frames)
	if err != nil {
		return err
	}
	if delimiter {
		if len(raw) == 0 || len(raw[0]) > 0 {
			return errors.New("no empty frame in front")
		}
		raw = raw[1:]
	}
	if len(raw) == 3 {
		if !bytes.Equal(raw[0], want.topic) {
			return fmt.Errorf("topic: want %.80q, got %.80q", want.topic, raw[0])
		}
		raw = raw[1:]
	}
	if len(raw) != 2 || len(raw[0]) != 8 {
		return errors.New("want a sequence of 8 bytes and a payload")
	}
	if got := binary.BigEndian.Uint64(raw[0]); got != want.seq {
		return fmt.Errorf("seq: want %d, got %d", want.seq, got)
	}
	if !bytes.Equal(raw[1], want.payload) {
		return fmt.Errorf("payload of seq %d: not the bytes of the live message", want.seq)
	}
	return nil
}
