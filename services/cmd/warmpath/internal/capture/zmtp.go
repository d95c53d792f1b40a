package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// transfer is what one side of a connection sent.
type transfer struct {
	Dir string
	Hex string
}

// checkZMTP judges the bytes of a connection by ZMTP 3.0 and 3.1 (https://rfc.zeromq.org/spec/23, /37) and the
// messages in it by vLLM's protocol. How TCP cut the bytes means nothing.
func checkZMTP(exchange []transfer) error {
	var sent, received []byte
	for i, t := range exchange {
		raw, err := hex.DecodeString(t.Hex)
		if err != nil {
			return fmt.Errorf("exchange[%d]: %w", i, err)
		}
		switch t.Dir {
		case "client->vllm":
			sent = append(sent, raw...)
		case "vllm->client":
			received = append(received, raw...)
		default:
			return fmt.Errorf("exchange[%d].dir: %.40q", i, t.Dir)
		}
	}
	client, err := readPeer(sent)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	engine, err := readPeer(received)
	if err != nil {
		return fmt.Errorf("vllm: %w", err)
	}
	switch engine.socket + " to " + client.socket {
	case "PUB to SUB":
		return checkPublished(client, engine)
	case "ROUTER to DEALER", "ROUTER to REQ":
		return checkRouted(engine)
	}
	return fmt.Errorf("socket types: a %s on a %s", client.socket, engine.socket)
}

// peer is what one side said.
type peer struct {
	socket   string     // its type, from READY
	prefixes [][]byte   // subscribed to
	messages [][][]byte // parts of each
}

const greetingSize = 64

func readPeer(raw []byte) (*peer, error) {
	if len(raw) < greetingSize {
		return nil, fmt.Errorf("%d bytes are no greeting", len(raw))
	}
	greeting, raw := raw[:greetingSize], raw[greetingSize:]
	if greeting[0] != 0xff || greeting[9] != 0x7f || greeting[10] != 3 {
		return nil, errors.New("greeting: no signature of version 3")
	}
	if mechanism := string(bytes.TrimRight(greeting[12:32], "\x00")); mechanism != "NULL" {
		return nil, fmt.Errorf("greeting: mechanism %.20q", mechanism)
	}
	if !bytes.Equal(greeting[33:], make([]byte, greetingSize-33)) {
		return nil, errors.New("greeting: the filler is not zero")
	}
	p := new(peer)
	var parts [][]byte
	for len(raw) > 0 {
		flags, body, rest, err := cutFrame(raw)
		if err != nil {
			return nil, err
		}
		raw = rest
		if flags&flagCommand != 0 {
			if err := p.command(body); err != nil {
				return nil, err
			}
			continue
		}
		if parts = append(parts, body); flags&flagMore == 0 {
			p.messages = append(p.messages, parts)
			parts = nil
		}
	}
	switch {
	case parts != nil:
		return nil, errors.New("the last message is not whole")
	case p.socket == "":
		return nil, errors.New("no READY")
	}
	return p, nil
}

// Flags of a frame.
const (
	flagMore = 1 << iota
	flagLong
	flagCommand
)

func cutFrame(raw []byte) (flags byte, body, rest []byte, err error) {
	flags, raw = raw[0], raw[1:]
	if flags > flagMore|flagLong|flagCommand || flags&flagCommand != 0 && flags&flagMore != 0 {
		return 0, nil, nil, fmt.Errorf("frame: flags 0x%02x", flags)
	}
	width, size := 1, uint64(0)
	if flags&flagLong != 0 {
		width = 8
	}
	if len(raw) < width {
		return 0, nil, nil, errors.New("frame: no size")
	}
	for _, b := range raw[:width] {
		size = size<<8 | uint64(b)
	}
	if raw = raw[width:]; size > uint64(len(raw)) {
		return 0, nil, nil, fmt.Errorf("frame: %d bytes claimed, %d left", size, len(raw))
	}
	return flags, raw[:size], raw[size:], nil
}

func (p *peer) command(body []byte) error {
	if len(body) == 0 || len(body) < 1+int(body[0]) {
		return errors.New("command without a name")
	}
	name, data := string(body[1:1+body[0]]), body[1+body[0]:]
	switch {
	case p.socket == "" && name != "READY":
		return fmt.Errorf("command %.20q before READY", name)
	case name == "READY":
		return p.ready(data)
	case name == "SUBSCRIBE":
		p.prefixes = append(p.prefixes, data)
	}
	return nil
}

// ready reads the properties of a READY: a name with one byte of length, a value with four.
func (p *peer) ready(data []byte) error {
	for len(data) > 0 {
		n := int(data[0])
		if len(data) < 1+n+4 {
			return errors.New("READY: a property is cut short")
		}
		name, rest := string(data[1:1+n]), data[1+n:]
		size := uint64(binary.BigEndian.Uint32(rest))
		if rest = rest[4:]; size > uint64(len(rest)) {
			return errors.New("READY: a value is cut short")
		}
		if strings.EqualFold(name, "Socket-Type") {
			p.socket = string(rest[:size])
		}
		data = rest[size:]
	}
	if p.socket == "" {
		return errors.New("READY: no socket type")
	}
	return nil
}

// checkPublished judges a subscription: messages of one publisher, in order, of the topics asked for.
func checkPublished(client, engine *peer) error {
	for _, m := range client.messages { // ZMTP 3.0 subscribes by a message
		if len(m) != 1 || len(m[0]) == 0 || m[0][0] > 1 {
			return errors.New("client: a message that is no subscription")
		}
		if m[0][0] == 1 {
			client.prefixes = append(client.prefixes, m[0][1:])
		}
	}
	if len(engine.messages) == 0 {
		return errors.New("vllm: no message")
	}
	last := uint64(0)
	for i, m := range engine.messages {
		seq, err := checkWire(m)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if i > 0 && seq != last+1 {
			return fmt.Errorf("message %d: seq %d follows %d", i, seq, last)
		}
		if last = seq; !subscribed(client.prefixes, m[0]) {
			return fmt.Errorf("message %d: topic %.80q was not asked for", i, m[0])
		}
	}
	return nil
}

func subscribed(prefixes [][]byte, topic []byte) bool {
	for _, p := range prefixes {
		if bytes.HasPrefix(topic, p) {
			return true
		}
	}
	return false
}

// checkWire judges one message of topic, sequence and payload.
func checkWire(parts [][]byte) (seq uint64, err error) {
	if len(parts) != 3 || len(parts[1]) != 8 {
		return 0, errors.New("want a topic, 8 bytes of sequence and a payload")
	}
	return binary.BigEndian.Uint64(parts[1]), decodable(parts[2])
}

// checkRouted judges the replies of a replay: batches in order, then the end.
func checkRouted(engine *peer) error {
	last, ended := uint64(0), false
	for i, m := range engine.messages {
		if len(m) != 3 && len(m) != 4 || len(m[0]) > 0 || len(m) != len(engine.messages[0]) {
			return fmt.Errorf("reply %d: %d frames", i, len(m))
		}
		seqAndPayload := m[len(m)-2:]
		if ended || len(seqAndPayload[0]) != 8 {
			return fmt.Errorf("reply %d: behind the end, or without a sequence", i)
		}
		seq := binary.BigEndian.Uint64(seqAndPayload[0])
		if ended = seq == endOfReplay && len(seqAndPayload[1]) == 0; ended {
			continue
		}
		if err := decodable(seqAndPayload[1]); err != nil {
			return fmt.Errorf("reply %d: %w", i, err)
		}
		if i > 0 && seq != last+1 {
			return fmt.Errorf("reply %d: seq %d follows %d", i, seq, last)
		}
		last = seq
	}
	if !ended {
		return errors.New("replies without an end")
	}
	return nil
}
