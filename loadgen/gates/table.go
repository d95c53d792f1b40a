package gates

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// errTable is wrapped by errors that the content of a file of measurements causes.
var errTable = errors.New("bad table of measurements")

// maxRecords bounds a table; the published ones have a few hundred.
const maxRecords = 10_000

// table is a file of measurements with a line of names first, read record by record.
type table struct {
	columns map[string]int
	records [][]string
	record  []string // in hand
	err     error    // the first
}

// readTable reads a file of comma-separated values, plain or compressed with gzip.
func readTable(path string) (*table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open measurements: %w", err)
	}
	defer f.Close()
	var r io.Reader = bufio.NewReader(f)
	if magic, _ := r.(*bufio.Reader).Peek(2); string(magic) == "\x1f\x8b" {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, fmt.Errorf("unzip %s: %w: %w", path, errTable, err)
		}
	}
	t := &table{columns: map[string]int{}}
	for lines := csv.NewReader(r); len(t.records) < maxRecords; {
		record, err := lines.Read()
		switch {
		case errors.Is(err, io.EOF):
			return t, nil
		case err != nil:
			return nil, fmt.Errorf("read %s: %w: %w", path, errTable, err)
		case len(t.columns) == 0:
			for i, name := range record {
				t.columns[name] = i
			}
		default:
			t.records = append(t.records, record)
		}
	}
	return nil, fmt.Errorf("read %s: %w: more than %d records", path, errTable, maxRecords)
}

// next takes the next record in hand; false at the end, and after an error.
func (t *table) next() bool {
	if len(t.records) == 0 || t.err != nil {
		return false
	}
	t.record, t.records = t.records[0], t.records[1:]
	return true
}

func (t *table) text(column string) string {
	i, ok := t.columns[column]
	if !ok {
		t.err = errors.Join(t.err, fmt.Errorf("%w: no column %s", errTable, column))
		return ""
	}
	return t.record[i]
}

func (t *table) number(column string) float64 {
	v, err := strconv.ParseFloat(t.text(column), 64)
	if err != nil || !(v > 0 && v < 1e9) {
		t.err = errors.Join(t.err, fmt.Errorf("%w: %s is %q", errTable, column, t.text(column)))
	}
	return v
}

// whole is a number that the experiments can be made with: at most 16,384 clients or tokens.
func (t *table) whole(column string) int {
	v := t.number(column)
	if v != float64(int(v)) || v > 1<<14 {
		t.err = errors.Join(t.err, fmt.Errorf("%w: %s is %v", errTable, column, v))
	}
	return int(v)
}
