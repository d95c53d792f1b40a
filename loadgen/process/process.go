// Package process runs the parts of a measurement in processes of their own, so that what each costs can be told from
// what the others cost. A process is this same command in a role; its parent calls it over its standard input and output.
package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A call is one line to a process, and an answer is one line back.
type (
	call struct {
		Name string          `json:"call"`
		Args json.RawMessage `json:"args"`
	}
	answer struct {
		Err   string          `json:"error,omitempty"`
		Value json.RawMessage `json:"value,omitempty"`
	}
)

// Process is a role at work in a process of its own. One call at a time; it ends when its standard input does, which the
// end of this process brings about too.
type Process struct {
	Role string // for messages

	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	log *tail

	mu sync.Mutex
}

// stopTime is how long a process may take to end in order.
const stopTime = 20 * time.Second

// Start starts a role by the command self, which must call Serve with the role's name, the argument that is added. It
// returns once the role has answered to its configuration, with the answer in reply unless that is nil.
func Start(ctx context.Context, self []string, role string, config, reply any) (*Process, error) {
	command := append(append([]string{}, self...), role)
	p := &Process{Role: role, cmd: exec.CommandContext(ctx, command[0], command[1:]...), log: &tail{}}
	p.cmd.Stderr = p.log
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := p.Ask(startCall, config, reply); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Ask calls the process and waits for its answer, which goes into reply unless that is nil.
func (p *Process) Ask(name string, args, reply any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	encoded, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("ask %s to %s: %w", p.Role, name, err)
	}
	var a answer
	err = json.NewEncoder(p.in).Encode(call{Name: name, Args: encoded})
	if err == nil {
		err = p.out.Decode(&a)
	}
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w%s", p.Role, name, err, p.log)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(a.Value, reply); err != nil {
		return fmt.Errorf("%s: read the answer to %s: %w", p.Role, name, err)
	}
	return nil
}

// CPU is the processor time that the process has used, in seconds.
func (p *Process) CPU() (seconds float64, err error) {
	err = p.Ask(cpuCall, nil, &seconds)
	return seconds, err
}

// Stop lets the process end in order, and kills it where it does not.
func (p *Process) Stop() {
	_ = p.in.Close()
	late := time.AfterFunc(stopTime, p.Kill)
	defer late.Stop()
	_ = p.cmd.Wait()
}

// Kill ends the process as a crash does: SIGKILL. Only Stop waits for it.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// tail keeps the end of what a process logged, to be shown where it fails.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text = append(t.text, b...); len(t.text) > 2*tailBytes {
		t.text = bytes.Clone(t.text[len(t.text)-tailBytes:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return "; its log ends with\n" + string(t.text[max(0, len(t.text)-tailBytes):])
}

const (
	startCall = "start"
	cpuCall   = "cpu"
)

// Role is what a process does between its start and its end.
type Role interface {
	// Handle answers one call. Calls come one after another.
	Handle(ctx context.Context, name string, args []byte) (any, error)
	Close()
}

// Starter starts a role by its configuration; the value is its answer.
type Starter func(ctx context.Context, config []byte) (Role, any, error)

// ErrUnknownCall says that a role has no such call.
var ErrUnknownCall = errors.New("the call is unknown")

// Serve is the body of a process that Start started: it plays one of the roles, and answers the calls on in until in or
// ctx ends.
func Serve(ctx context.Context, roles map[string]Starter, name string, in io.Reader, out io.Writer) error {
	start, ok := roles[name]
	if !ok {
		return fmt.Errorf("role %q is unknown", name)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r Role
	defer func() {
		if r != nil {
			r.Close()
		}
	}()
	encoder := json.NewEncoder(out)
	for lines := bufio.NewReader(in); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var c call
		if err == nil {
			err = json.Unmarshal(line, &c)
		}
		if err != nil {
			return fmt.Errorf("read a call: %w", err)
		}
		var value any
		switch {
		case c.Name == cpuCall:
			value = cpuSeconds()
		case r == nil:
			r, value, err = start(ctx, c.Args)
		default:
			value, err = r.Handle(ctx, c.Name, c.Args)
		}
		if err := encoder.Encode(answered(value, err)); err != nil {
			return err
		}
	}
}

func answered(value any, err error) answer {
	if err != nil {
		return answer{Err: err.Error()}
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return answer{Err: err.Error()}
	}
	return answer{Value: encoded}
}

// cpuSeconds is the processor time of this process, in user and system mode.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
