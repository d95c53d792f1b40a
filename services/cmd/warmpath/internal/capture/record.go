package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/kvwire"
)

// RecordOptions says what to record.
type RecordOptions struct {
	Endpoint string // of the engine's PUB socket, such as tcp://127.0.0.1:5557
	Frames   int    // stop after so many messages; 0 means no limit
}

// recorded is one line: a message, and what it decodes to (null where it is no msgpack). Decoded holds the token ids
// of prompts.
type recorded struct {
	Case     string    `json:"case"`
	Received time.Time `json:"received"`
	Frames   [3]string `json:"frames"`
	Topic    *string   `json:"topic,omitempty"` // left out where it is no text
	Seq      uint64    `json:"seq"`
	Decoded  any       `json:"decoded"`
}

// Record writes a line for each message that the engine publishes, until o.Frames are written or ctx ends, which is
// no error. It returns how many it wrote. Messages that arrive faster than w takes them are lost at the publisher's
// limit; the sequences show it.
func Record(ctx context.Context, w io.Writer, o RecordOptions) (int, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n, failed := 0, error(nil)
	err := kvwire.Subscribe(ctx, o.Endpoint, func(f kvwire.Frame) {
		if ctx.Err() != nil {
			return
		}
		if failed = writeFrame(w, f); failed != nil {
			stop()
			return
		}
		if n++; n == o.Frames {
			stop()
		}
	}, nil)
	return n, errors.Join(err, failed)
}

func writeFrame(w io.Writer, f kvwire.Frame) error {
	seq := binary.BigEndian.AppendUint64(nil, f.Seq)
	r := recorded{
		Case:     fmt.Sprintf("seq %d", f.Seq),
		Received: f.Received.UTC(),
		Frames:   [3]string{hex.EncodeToString(f.Topic), hex.EncodeToString(seq), hex.EncodeToString(f.Payload)},
		Seq:      f.Seq,
	}
	if topic := string(f.Topic); strings.ToValidUTF8(topic, "") == topic {
		r.Topic = &topic
	}
	if plain, err := unpack(f.Payload); err == nil {
		r.Decoded = toJSON(plain)
	}
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(&r); err != nil {
		return fmt.Errorf("write seq %d: %w", f.Seq, err)
	}
	if _, err := w.Write(line.Bytes()); err != nil {
		return fmt.Errorf("write seq %d: %w", f.Seq, err)
	}
	return nil
}
