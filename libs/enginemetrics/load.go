package enginemetrics

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// loadSeries are what ParseLoad reads.
var loadSeries = [][]byte{
	[]byte("vllm:num_requests_running"), []byte("vllm:num_requests_waiting"), []byte("vllm:num_requests_waiting_by_reason"),
	[]byte("vllm:kv_cache_usage_perc"), []byte("vllm:gpu_cache_usage_perc"),
	[]byte("vllm:prompt_tokens_total"), []byte("vllm:generation_tokens_total"), []byte("vllm:num_preemptions_total"),
	[]byte("vllm:cache_config_info"),
}

// ParseLoad is Parse of what changes from second to second, and what it is held against: Running, Waiting, KVUsage,
// PromptTokens, GenerationTokens, Preemptions and Cache. It costs a tenth of Parse, as it passes over all other lines, the histograms, unread.
func ParseLoad(r io.Reader) ([]Snapshot, error) {
	in := bufio.NewReaderSize(&io.LimitedReader{R: r, N: MaxBytes + 1}, 32<<10)
	var kept bytes.Buffer
	read := 0
	for whole := true; ; {
		line, err := in.ReadSlice('\n')
		read += len(line)
		if whole && isLoad(line) {
			kept.Write(line)
		}
		whole = err == nil // else the rest of a line too long to be a series of ours follows
		switch {
		case read > MaxBytes:
			return nil, fmt.Errorf("read engine metrics: %w: over %d bytes", ErrTooLarge, MaxBytes)
		case errors.Is(err, io.EOF):
			kept.WriteByte('\n')
			return Parse(&kept)
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("read engine metrics: %w", err)
		}
	}
}

// isLoad says whether a line is a sample of one of loadSeries.
func isLoad(line []byte) bool {
	for _, name := range loadSeries {
		if rest, ok := bytes.CutPrefix(line, name); ok && len(rest) > 0 && (rest[0] == '{' || rest[0] == ' ') {
			return true
		}
	}
	return false
}
