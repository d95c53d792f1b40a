package workload

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// ReadAzure reads a trace in the format of the Azure LLM inference traces: CSV with a header and the columns
// TIMESTAMP, ContextTokens and GeneratedTokens, plain or compressed with gzip. Prompts share nothing. Times count from
// the first request. Errors wrap ErrTrace and name the line.
func ReadAzure(r io.Reader) (Trace, error) {
	r, err := unzipped(bufio.NewReader(r))
	if err != nil {
		return Trace{}, err
	}
	lines := csv.NewReader(r)
	lines.FieldsPerRecord, lines.ReuseRecord = 3, true
	var t Trace
	var start time.Time
	next := sharedBlock + 1
	for n := 1; ; n++ {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Trace{}, fmt.Errorf("%w: %w", ErrTrace, err)
		}
		if n == 1 {
			continue
		}
		q, at, err := parseAzure(fields)
		if err != nil {
			return Trace{}, fmt.Errorf("line %d: %w: %w", n, ErrTrace, err)
		}
		if len(t.Requests) == maxRequests {
			return Trace{}, fmt.Errorf("line %d: %w: more than %d requests", n, ErrTrace, maxRequests)
		}
		if start.IsZero() {
			start = at
		}
		q.At = at.Sub(start)
		for range (q.Input + BlockTokens - 1) / BlockTokens {
			q.Blocks = append(q.Blocks, next)
			next++
		}
		t.Requests = append(t.Requests, q)
	}
	if len(t.Requests) == 0 {
		return Trace{}, fmt.Errorf("%w: no requests", ErrTrace)
	}
	t.sort()
	return t.Slice(t.Requests[0].At, math.MaxInt64), nil
}

func parseAzure(fields []string) (q Request, at time.Time, err error) {
	if at, err = time.Parse("2006-01-02 15:04:05", fields[0]); err != nil {
		return q, at, err
	}
	for i, n := range []*int{&q.Input, &q.Output} {
		if *n, err = strconv.Atoi(fields[i+1]); err != nil {
			return q, at, err
		}
		if *n < 1 || *n > maxTokens {
			return q, at, fmt.Errorf("%d tokens are not in 1 to %d", *n, maxTokens)
		}
	}
	return q, at, nil
}
