package capture

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// checkFrames judges the three frames of a live message: the topic, the sequence, and what the payload decodes to.
func checkFrames(l *line) error {
	_, err := readFrames(l)
	return err
}

// readFrames is checkFrames, and gives the batch.
func readFrames(l *line) (*kvevent.Batch, error) {
	if len(l.Frames) != 3 {
		return nil, fmt.Errorf("want 3 frames, got %d", len(l.Frames))
	}
	frames, err := unhex(l.Frames)
	if err != nil {
		return nil, err
	}
	for _, topic := range []*string{l.Topic, l.PublisherTopic} {
		if topic != nil && *topic != string(frames[0]) {
			return nil, fmt.Errorf("topic: want %.80q, the frame has %.80q", *topic, frames[0])
		}
	}
	if len(frames[1]) != 8 {
		return nil, fmt.Errorf("seq: the frame has %d bytes, want 8", len(frames[1]))
	}
	if got := fmt.Sprint(binary.BigEndian.Uint64(frames[1])); got != l.Seq.String() {
		return nil, fmt.Errorf("seq: want %s, the frame has %s", l.Seq, got)
	}
	return checkPayload(frames[2], l.Decoded)
}

// checkPayload compares a payload with its decoded form twice: value by value, whatever they mean, and as the batch
// that Warmpath reads. A payload that is no msgpack has no decoded form.
func checkPayload(payload []byte, decoded any) (*kvevent.Batch, error) {
	plain, err := unpack(payload)
	if err != nil {
		if decoded == nil {
			return &kvevent.Batch{}, nil
		}
		return nil, err
	}
	want, err := fromJSON(decoded)
	if err != nil {
		return nil, fmt.Errorf("read decoded: %w", err)
	}
	if d := differ("decoded", want, plain); d != "" {
		return nil, errors.New(d)
	}
	return readBatch(payload, plain)
}

// readBatch decodes a payload and checks the batch against its plain values.
func readBatch(payload []byte, plain any) (*kvevent.Batch, error) {
	var d kvevent.Decoder
	b := new(kvevent.Batch)
	if err := d.Decode(payload, b); err != nil {
		return nil, err
	}
	if b.Bad > 0 {
		return nil, fmt.Errorf("%d events could not be read: %w", b.Bad, b.Errs[0])
	}
	return b, checkBatch(b, plain)
}

// decodable reads a payload of which no decoded form is recorded.
func decodable(payload []byte) error {
	plain, err := unpack(payload)
	if err != nil {
		return err
	}
	_, err = readBatch(payload, plain)
	return err
}

func unhex(frames []string) ([][]byte, error) {
	out := make([][]byte, len(frames))
	for i, text := range frames {
		var err error
		if out[i], err = hex.DecodeString(text); err != nil {
			return nil, fmt.Errorf("read frame %d: %w", i, err)
		}
	}
	return out, nil
}
