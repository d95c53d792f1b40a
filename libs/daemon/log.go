package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// lines is a slog.Handler whose lines read
//
//	2026-11-21T15:04:05.000Z INFO message {"key":"value"}
//
// so that people find the message and programs the one JSON object behind it. The object is slog's own.
type lines struct {
	out    *output
	object slog.Handler // writes into out.line
}

// output is shared by a handler and those made from it.
type output struct {
	mu   sync.Mutex
	w    io.Writer
	line bytes.Buffer
}

func newLines(w io.Writer, level slog.Leveler) lines {
	out := &output{w: w}
	bare := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}
	return lines{out, slog.NewJSONHandler(&out.line, &slog.HandlerOptions{Level: level, ReplaceAttr: bare})}
}

func (h lines) Enabled(ctx context.Context, level slog.Level) bool {
	return h.object.Enabled(ctx, level)
}

// Handle writes one line with one call of Write.
func (h lines) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	line := &h.out.line
	line.Reset()
	line.Write(r.Time.UTC().AppendFormat(line.AvailableBuffer(), "2006-01-02T15:04:05.000Z07:00"))
	line.WriteByte(' ')
	line.WriteString(r.Level.String())
	line.WriteByte(' ')
	line.WriteString(r.Message)
	line.WriteByte(' ')
	r.Time = time.Time{}
	if err := h.object.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.w.Write(line.Bytes())
	return err
}

func (h lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lines{h.out, h.object.WithAttrs(attrs)}
}

func (h lines) WithGroup(name string) slog.Handler { return lines{h.out, h.object.WithGroup(name)} }
