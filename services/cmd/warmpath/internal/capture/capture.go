// Package capture writes and checks recordings of vLLM's KV-cache events: JSON Lines, one case a line.
//
// A recorded line holds the frames of one message and what they decode to. Verify also knows lines with block hashes,
// with replies of a replay, with raw ZMTP bytes, and with the steps of a scheduler beside the cache contents after
// each. It judges a line by its shape, wherever it lies, and recomputes everything that can be: it trusts nothing but
// the frames and the inputs of requests. It judges recordings only, and connects to an engine only to record.
package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Result counts the cases of a Verify.
type Result struct {
	Cases      int // judged, with and without a mismatch
	NotJudged  int // of a kind that NotJudged names
	Mismatches int // cases that differ from what they should be
}

// maxLine bounds a line; a batch of 8 MiB is 16 MiB in hexadecimal, and about as much decoded.
const maxLine = 256 << 20

// errNotJudged is returned by a check for a line whose kind NotJudged names.
var errNotJudged = errors.New("not judged")

// NotJudged names what Verify does not judge, each with the reason.
func NotJudged() []string {
	return []string{
		`block hashes of the algorithm "builtin": Python's hash() differs from process to process; such lines of block hashes are counted as not judged`,
		"none_hash where pythonhashseed is null: vLLM drew it at random; it is taken as given",
		"usage_after: it counts referenced blocks, which events do not tell; only its range is checked",
		"publisher_dp_rank: a batch may carry a rank of its own",
		"gaps between the sequences of recorded frames: a subscriber may join late, and a publisher may skip",
	}
}

// Verify checks every line of the files and writes one line to w for each case that differs, then a summary.
// It holds one line at a time, and of each file the engine's state. The error is about reading, never a mismatch.
func Verify(w io.Writer, files []string) (Result, error) {
	var total Result
	for _, name := range files {
		if err := verifyFile(w, name, &total); err != nil {
			return total, fmt.Errorf("verify %s: %w", name, err)
		}
	}
	unjudged := ""
	if total.NotJudged > 0 {
		unjudged = fmt.Sprintf(", %d not judged", total.NotJudged)
	}
	_, err := fmt.Fprintf(w, "verified %d cases%s, %d mismatches\n", total.Cases, unjudged, total.Mismatches)
	return total, err
}

func verifyFile(w io.Writer, name string, total *Result) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	v := verifier{w: w, name: filepath.Base(name), total: total}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		v.number++
		if len(lines.Bytes()) == 0 {
			continue
		}
		v.line(lines.Bytes())
	}
	v.replays.finish(v.report)
	return errors.Join(lines.Err(), v.err)
}

// verifier checks one file.
type verifier struct {
	w      io.Writer
	name   string
	number int // of the line at hand, from 1
	total  *Result
	err    error // of writing

	flow    flow
	replays replays
}

// at says where a case stands.
type at struct {
	line int
	name string
}

func (v *verifier) line(raw []byte) {
	var l line
	if err := l.parse(raw); err != nil {
		v.report(at{v.number, ""}, err)
		return
	}
	where := at{v.number, l.name()}
	switch l.shape() {
	case shapeReplay:
		v.replays.asked(&l, where) // judged when the live messages are known
	case shapeLive:
		v.report(where, v.replays.live(&l))
	case shapeFlow:
		v.report(where, v.flow.check(&l))
	case shapeBlockHash:
		v.report(where, checkBlockHashes(&l))
	case shapeOffload:
		v.report(where, errors.Join(checkFrames(&l), checkRequest(&l)))
	case shapeFrames:
		v.report(where, checkFrames(&l))
	case shapeZMTP:
		v.report(where, checkZMTP(l.Exchange))
	default:
		v.report(where, errors.New("a line of unknown shape"))
	}
}

// report counts a case and writes what is wrong with it.
func (v *verifier) report(where at, err error) {
	if errors.Is(err, errNotJudged) {
		v.total.NotJudged++
		return
	}
	v.total.Cases++
	if err == nil {
		return
	}
	v.total.Mismatches++
	if _, werr := fmt.Fprintf(v.w, "%s:%d %s: %s\n", v.name, where.line, where.name, firstLine(err)); v.err == nil {
		v.err = werr
	}
}

// firstLine keeps one mismatch on one line: what differs first tells the most.
func firstLine(err error) string {
	text := err.Error()
	for i := range text {
		if text[i] == '\n' {
			return text[:i]
		}
	}
	return text
}

// shape is a kind of line, known by the fields that it has.
type shape int

const (
	shapeUnknown shape = iota
	shapeFrames
	shapeOffload
	shapeFlow
	shapeBlockHash
	shapeReplay
	shapeLive
	shapeZMTP
)

// line is any line of a recording.
type line struct {
	fields map[string]json.RawMessage // which are there at all

	Case   string
	Stream string
	Step   json.Number
	Action string

	Frames         []string
	Topic          *string
	PublisherTopic *string `json:"publisher_topic"`
	Seq            json.Number
	Decoded        any

	Algo      string
	Seed      *string  `json:"pythonhashseed"`
	NoneHash  *string  `json:"none_hash"`
	BlockSize int      `json:"hash_block_size"`
	Tokens    []uint32 `json:"token_ids"`
	Salt      string   `json:"cache_salt"`
	LoRA      *lora
	Features  []feature `json:"mm_features"`
	Embeds    *embeds   `json:"prompt_embeds"`
	Blocks    []block
	Request   *request

	CachedAfter map[string]int `json:"cached_after"`
	UsageAfter  *float64       `json:"usage_after"`

	Socket    string     `json:"client_socket"`
	Buffer    *int       `json:"buffer_steps"`
	Asked     []string   `json:"request_frames"`
	Replies   [][]string `json:"reply_messages"`
	ErrorThen *string    `json:"client_error_after_first_reply"`
	Live      [][]string `json:"live_messages"`

	Exchange []transfer
}

func (l *line) parse(raw []byte) error {
	if err := json.Unmarshal(raw, &l.fields); err != nil {
		return fmt.Errorf("no JSON object: %w", err)
	}
	if err := unmarshal(raw, l); err != nil {
		return fmt.Errorf("read the line: %w", err)
	}
	return nil
}

func (l *line) has(names ...string) bool {
	for _, name := range names {
		if _, ok := l.fields[name]; !ok {
			return false
		}
	}
	return true
}

func (l *line) name() string {
	if l.has("stream", "step") {
		return l.Stream + "/" + l.Step.String()
	}
	return l.Case
}

func (l *line) shape() shape {
	switch {
	case l.has("stream", "step", "action", "cached_after"):
		return shapeFlow
	case l.has("algo", "blocks", "token_ids"):
		return shapeBlockHash
	case l.has("reply_messages", "request_frames"):
		return shapeReplay
	case l.has("live_messages"):
		return shapeLive
	case l.has("exchange"):
		return shapeZMTP
	case l.has("frames", "decoded", "request"):
		return shapeOffload
	case l.has("frames", "decoded"):
		return shapeFrames
	}
	return shapeUnknown
}
