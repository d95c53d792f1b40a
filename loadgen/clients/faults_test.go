package clients

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// asked is what the engines here read of a request.
type asked struct {
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	Encoding string `json:"encoding_format"`
	Messages []struct {
		Content string `json:"content"`
	} `json:"messages"`
}

func read(r *http.Request) (a asked) {
	_ = json.NewDecoder(r.Body).Decode(&a) // the scripts send what it can read
	return a
}

func send(w http.ResponseWriter, parts ...string) {
	for _, p := range parts {
		_, _ = io.WriteString(w, p)
		_ = http.NewResponseController(w).Flush()
	}
}

func begin(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/event-stream; charset=utf-8") }

// delta is one event of a chat.
func delta(model, inner, reason string) string {
	return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"` + model +
		`","choices":[{"index":0,"delta":` + inner + `,"logprobs":null,"finish_reason":` + reason + "}]}\n\n"
}

// loseMiddle sends two events and half of a third, or half an object, and hangs up.
func loseMiddle(w http.ResponseWriter, r *http.Request) {
	a := read(r)
	if !a.Stream {
		w.Header().Set("Content-Type", "application/json")
		send(w, `{"id":"chatcmpl-1","object":"chat.completion","choices":[`)
		panic(http.ErrAbortHandler)
	}
	begin(w)
	third := delta(a.Model, `{"content":"three"}`, "null")
	send(w, delta(a.Model, `{"role":"assistant","content":"one "}`, "null"), delta(a.Model, `{"content":"two "}`, "null"), third[:len(third)/2])
	panic(http.ErrAbortHandler)
}

// stall never ends; of a stream it sends the first event.
func stall(w http.ResponseWriter, r *http.Request) {
	if a := read(r); a.Stream {
		begin(w)
		send(w, delta(a.Model, `{"role":"assistant","content":"one "}`, "null"))
	}
	<-r.Context().Done()
}

func refuseAsAsked(w http.ResponseWriter, r *http.Request) {
	a := read(r)
	status, err := strconv.Atoi(a.Messages[len(a.Messages)-1].Content)
	if err != nil {
		status = http.StatusBadRequest
	}
	writeError(w, status, "refused with "+strconv.Itoa(status), "temperature")
}

const (
	toolCall  = `"id":"call_1","type":"function","function":{"name":"weather","arguments":`
	toolUsage = `"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3}`
)

// callTool calls the tool weather with {"city":"Oslo"}; in a stream in two parts.
func callTool(w http.ResponseWriter, r *http.Request) {
	a := read(r)
	if !a.Stream {
		w.Header().Set("Content-Type", "application/json")
		send(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"`+a.Model+
			`","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{`+toolCall+
			`"{\"city\":\"Oslo\"}"}}]},"finish_reason":"tool_calls"}],`+toolUsage+`}`)
		return
	}
	begin(w)
	send(w, delta(a.Model, `{"role":"assistant","content":null,"tool_calls":[{"index":0,`+toolCall+`"{\"city\":"}}]}`, "null"),
		delta(a.Model, `{"tool_calls":[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]}`, "null"),
		delta(a.Model, `{}`, `"tool_calls"`),
		`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"`+a.Model+`","choices":[],`+toolUsage+"}\n\n",
		"data: [DONE]\n\n")
}

// embed answers with the vector 1, -0.5, 0.25 in the form that was asked for.
func embed(w http.ResponseWriter, r *http.Request) {
	a := read(r)
	vector := []float32{1, -.5, .25}
	var embedding any = vector
	if a.Encoding == "base64" {
		var raw []byte
		for _, x := range vector {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		embedding = base64.StdEncoding.EncodeToString(raw)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"object": "list", "model": a.Model, "usage": map[string]int{"prompt_tokens": 2, "total_tokens": 2},
		"data": []any{map[string]any{"object": "embedding", "index": 0, "embedding": embedding}},
	})
}

// respond serves the Responses API with "hello there"; its streams have named events and no end mark.
func respond(w http.ResponseWriter, r *http.Request) {
	a := read(r)
	whole := `{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"` + a.Model +
		`","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[` +
		`{"type":"output_text","text":"hello there","annotations":[]}]}],"parallel_tool_calls":true,"tool_choice":"auto","tools":[]}`
	if !a.Stream {
		w.Header().Set("Content-Type", "application/json")
		send(w, whole)
		return
	}
	begin(w)
	for i, text := range []string{"hello", " there"} {
		send(w, "event: response.output_text.delta\ndata: "+`{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,`+
			`"content_index":0,"sequence_number":`+strconv.Itoa(i)+`,"delta":"`+text+`","logprobs":[]}`+"\n\n")
	}
	send(w, "event: response.completed\ndata: "+strings.Join([]string{`{"type":"response.completed"`, `"sequence_number":2`, `"response":` + whole}, ",")+"}\n\n")
}
