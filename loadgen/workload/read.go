package workload

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// What a trace may hold at most. The longest prompts and traces that are published are a tenth of it.
const (
	maxLine     = 1 << 20 // bytes
	maxRequests = 1 << 20
	maxTokens   = 1 << 21 // prompt or output tokens of a request
	maxBlocks   = 1 << 25 // block ids of a whole trace
	maxMillis   = int64(1000 * 3600 * 24 * 366)
)

// ErrTrace is wrapped by every error that a trace's content causes.
var ErrTrace = errors.New("bad trace")

// The names under which the conversation trace and Azure's are published and kept.
var azureNames = []string{"azure_llm_2023_conv.csv.gz", "AzureLLMInferenceTrace_conv.csv"}

var fileNames = []string{"mooncake_conversation.jsonl.gz", "mooncake_conversation.jsonl", "conversation_trace.jsonl"}

// Find looks for the conversation trace in the folders traces and shared/traces of dir and of the folders above it,
// nearest first.
func Find(dir string) (path string, ok bool) { return find(dir, fileNames) }

// FindAzure looks there for the Azure conversation trace of 2023.
func FindAzure(dir string) (path string, ok bool) { return find(dir, azureNames) }

// FindServeGen looks there for the rates of ServeGen's m-large.
func FindServeGen(dir string) (path string, ok bool) {
	return find(dir, []string{"servegen_m-large_rates.csv.gz", "servegen_m-large_rates.csv"})
}

// FindCalibration looks there for a file of the folder calibration: published measurements, not traces.
func FindCalibration(dir, name string) (path string, ok bool) {
	return find(dir, []string{filepath.Join("calibration", name)})
}

func find(dir string, names []string) (path string, ok bool) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", false
	}
	for {
		for _, folder := range []string{"traces", filepath.Join("shared", "traces")} {
			for _, name := range names {
				path = filepath.Join(dir, folder, name)
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					return path, true
				}
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// Open reads the trace at path in the Mooncake format, which may be compressed with gzip whatever its name is. The
// trace is called after the file, or Conversation where it is that one.
func Open(path string) (Trace, error) {
	t, err := open(path, Read)
	for _, name := range fileNames {
		if t.Name == name {
			t.Name = Conversation
		}
	}
	return t, err
}

// OpenAzure reads the trace at path in the Azure format, plain or compressed with gzip.
func OpenAzure(path string) (Trace, error) { return open(path, ReadAzure) }

func open(path string, read func(io.Reader) (Trace, error)) (Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return Trace{}, fmt.Errorf("open trace: %w", err)
	}
	defer f.Close()
	t, err := read(f)
	if err != nil {
		return Trace{}, fmt.Errorf("read %s: %w", path, err)
	}
	t.Name = filepath.Base(path)
	return t, nil
}

// Read reads a trace in the Mooncake format, plain or compressed with gzip: one JSON object a line with timestamp
// (ms), input_length, output_length and hash_ids. Requests are sorted by time. Errors wrap ErrTrace and name the line.
func Read(r io.Reader) (Trace, error) {
	r, err := unzipped(bufio.NewReader(r))
	if err != nil {
		return Trace{}, err
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	var t Trace
	n, blocks := 0, 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		q, err := parseLine(lines.Bytes())
		if err != nil {
			return Trace{}, fmt.Errorf("line %d: %w: %w", n, ErrTrace, err)
		}
		blocks += len(q.Blocks)
		if len(t.Requests) == maxRequests || blocks > maxBlocks {
			return Trace{}, fmt.Errorf("line %d: %w: more than %d requests or %d block ids", n, ErrTrace, maxRequests, maxBlocks)
		}
		t.Requests = append(t.Requests, q)
	}
	if err := lines.Err(); err != nil {
		return Trace{}, fmt.Errorf("line %d: %w: %w", n+1, ErrTrace, err)
	}
	if len(t.Requests) == 0 {
		return Trace{}, fmt.Errorf("%w: no requests", ErrTrace)
	}
	t.sort()
	return t, nil
}

// unzipped reads what may be compressed with gzip.
func unzipped(r *bufio.Reader) (io.Reader, error) {
	if magic, _ := r.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return r, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("unzip: %w: %w", ErrTrace, err)
	}
	return z, nil
}

// line has pointers where zero and absent are not the same.
type line struct {
	Timestamp *int64   `json:"timestamp"`
	Input     int      `json:"input_length"`
	Output    int      `json:"output_length"`
	HashIDs   []uint64 `json:"hash_ids"`
}

func parseLine(raw []byte) (Request, error) {
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return Request{}, err
	}
	want := (l.Input + BlockTokens - 1) / BlockTokens
	switch {
	case l.Timestamp == nil:
		return Request{}, errors.New("no timestamp")
	case *l.Timestamp < 0 || *l.Timestamp > maxMillis:
		return Request{}, fmt.Errorf("timestamp %d ms is not in 0 to %d", *l.Timestamp, maxMillis)
	case l.Input < 1 || l.Input > maxTokens:
		return Request{}, fmt.Errorf("input_length %d is not in 1 to %d", l.Input, maxTokens)
	case l.Output < 1 || l.Output > maxTokens:
		return Request{}, fmt.Errorf("output_length %d is not in 1 to %d", l.Output, maxTokens)
	case len(l.HashIDs) != want:
		return Request{}, fmt.Errorf("%d hash_ids for input_length %d, want %d", len(l.HashIDs), l.Input, want)
	}
	at := time.Duration(*l.Timestamp) * time.Millisecond
	return Request{At: at, Input: l.Input, Output: l.Output, Blocks: l.HashIDs}, nil
}
