package run

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/tmaxmax/go-sse"
)

// maxEvent bounds one server-sent event. A chunk of tokens is a few hundred bytes.
const maxEvent = 1 << 20

var (
	// ErrStatus is wrapped by the error of a request that was not answered with 200.
	ErrStatus = errors.New("refused")
	// ErrStream is wrapped by the error of an answer that began and did not come to its end.
	ErrStream = errors.New("stream broken")
)

// appendBody appends the JSON body of a completion request: the prompt as token ids, exactly output tokens of answer,
// streamed, with usage at the end.
func appendBody(dst []byte, model string, tokens []uint32, output int) []byte {
	name, _ := json.Marshal(model) // a string always has JSON
	dst = append(dst, `{"model":`...)
	dst = append(dst, name...)
	dst = append(dst, `,"max_tokens":`...)
	dst = strconv.AppendInt(dst, int64(output), 10)
	dst = append(dst, `,"ignore_eos":true,"temperature":0,"stream":true,"stream_options":{"include_usage":true},"prompt":[`...)
	for i, t := range tokens {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(t), 10)
	}
	return append(dst, "]}"...)
}

func (d *driver) send(ctx context.Context, out *Outcome, body []byte) error {
	url := strings.TrimSuffix(d.o.endpoint(out.Request), "/") + "/v1/completions"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if d.o.RequestID != nil {
		req.Header.Set("X-Request-Id", d.o.RequestID(out.Request))
	}
	if d.o.Key != "" {
		req.Header.Set("Authorization", "Bearer "+d.o.Key)
	}
	res, err := d.o.Client.Do(req)
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	defer res.Body.Close()
	out.Engine = res.Header.Get(EngineHeader)
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return fmt.Errorf("%w: status %d: %s", ErrStatus, res.StatusCode, bytes.TrimSpace(why))
	}
	return d.receive(res.Body, out)
}

// receive reads the stream to its end and notes when each chunk came.
func (d *driver) receive(body io.Reader, out *Outcome) error {
	ended := false
	defer func() { out.Output = cmp.Or(out.Output, out.Chunks) }()
	for event, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStream, err)
		}
		now := d.now()
		if event.Data == "[DONE]" {
			ended = true
			continue
		}
		tokens, err := out.read(event.Data)
		if err != nil {
			return err
		}
		if !tokens {
			continue
		}
		if out.Chunks++; out.Chunks == 1 {
			out.First = now
		}
		out.Last = now
	}
	if !ended || out.Chunks == 0 {
		return fmt.Errorf("%w after %d chunks", ErrStream, out.Chunks)
	}
	return nil
}

// chunk is the part of a streamed completion that the driver needs.
type chunk struct {
	Choices []struct{} `json:"choices"`
	Usage   *struct {
		Prompt  int `json:"prompt_tokens"`
		Output  int `json:"completion_tokens"`
		Details *struct {
			Cached *int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// read notes what a chunk says of usage, and tells whether it carries tokens. Only chunks with usage or an error are
// parsed: their names stand in no chunk's text, where quotes are escaped.
func (out *Outcome) read(data string) (tokens bool, err error) {
	if !strings.Contains(data, `"prompt_tokens"`) && !strings.Contains(data, `"error"`) {
		return true, nil
	}
	var c chunk
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		return false, fmt.Errorf("%w: read chunk: %w", ErrStream, err)
	}
	if c.Error != nil {
		return false, fmt.Errorf("%w: %s", ErrStream, c.Error.Message)
	}
	if u := c.Usage; u != nil {
		out.Prompt, out.Output = u.Prompt, u.Output
		if u.Details != nil && u.Details.Cached != nil {
			out.Cached = *u.Details.Cached
		}
	}
	return len(c.Choices) > 0, nil
}
