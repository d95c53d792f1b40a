package enginesim

import "strings"

// The vocabulary: every byte, four special tokens, and pieces of lower-case letters. A piece of three letters behind
// a space is a word; answers consist of words, because such a text is cut into the same tokens wherever it stands.
const (
	imStart  = 256 // <|im_start|>
	imEnd    = 257 // <|im_end|>
	endOf    = 258 // <|endoftext|>
	imagePad = 259 // <|image_pad|>

	pairs      = 26 * 26
	words      = 26 * 26 * 26
	pairBase   = 260                // ab
	tripleBase = pairBase + pairs   // abc
	spaceOne   = tripleBase + words // " a"
	spaceTwo   = spaceOne + 26      // " ab"
	wordBase   = spaceTwo + pairs   // " abc"

	// VocabSize is the number of token ids that Tokenize and OutputToken return.
	VocabSize = wordBase + words
)

var specials = [...]string{"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|image_pad|>"}

// Tokenize appends the tokens of a text to dst. It is a toy: fixed pieces of up to three letters with the space before
// them, bytes for all else. It loses nothing (Detokenize gives the text back), and what comes behind a text does not
// change its tokens if it begins with a space, a line break or a special token.
func Tokenize(dst []uint32, text string) []uint32 {
	for i := 0; i < len(text); {
		if text[i] == '<' {
			if token, n := special(text[i:]); n > 0 {
				dst = append(dst, token)
				i += n
				continue
			}
		}
		token, n := piece(text[i:])
		dst = append(dst, token)
		i += n
	}
	return dst
}

// special returns the special token that text begins with, and its length, or 0.
func special(text string) (token uint32, n int) {
	for i, s := range specials {
		if strings.HasPrefix(text, s) {
			return imStart + uint32(i), len(s)
		}
	}
	return 0, 0
}

// piece returns the longest piece that text begins with, and its length.
func piece(text string) (token uint32, n int) {
	space := 0
	if text[0] == ' ' {
		space = 1
	}
	code, letters := uint32(0), 0
	for letters < 3 && space+letters < len(text) {
		c := text[space+letters] - 'a'
		if c > 25 {
			break
		}
		code = code*26 + uint32(c)
		letters++
	}
	switch {
	case letters == 3:
		return [2]uint32{tripleBase, wordBase}[space] + code, space + 3
	case letters == 2:
		return [2]uint32{pairBase, spaceTwo}[space] + code, space + 2
	case letters == 1 && space == 1:
		return spaceOne + code, 2
	}
	return uint32(text[0]), 1
}

// Detokenize appends the text of tokens to dst. An id outside of the vocabulary becomes U+FFFD.
func Detokenize(dst []byte, tokens ...uint32) []byte {
	for _, t := range tokens {
		switch {
		case t < imStart:
			dst = append(dst, byte(t))
		case t < pairBase:
			dst = append(dst, specials[t-imStart]...)
		case t < tripleBase:
			dst = letters(dst, t-pairBase, 2)
		case t < spaceOne:
			dst = letters(dst, t-tripleBase, 3)
		case t < spaceTwo:
			dst = letters(append(dst, ' '), t-spaceOne, 1)
		case t < wordBase:
			dst = letters(append(dst, ' '), t-spaceTwo, 2)
		case t < VocabSize:
			dst = letters(append(dst, ' '), t-wordBase, 3)
		default:
			dst = append(dst, "\uFFFD"...)
		}
	}
	return dst
}

// letters appends n letters that code stands for.
func letters(dst []byte, code uint32, n int) []byte {
	for div := [...]uint32{1, 26, 26 * 26}[n-1]; div > 0; div /= 26 {
		dst = append(dst, 'a'+byte(code/div%26))
	}
	return dst
}

// Message is one message of a chat.
type Message struct {
	Role, Content string
}

// Template says how TokenizeChat ends a chat.
type Template struct {
	Tools         string // JSON of the tools, put before the first message
	Generate      bool   // begin the assistant's next message
	ContinueFinal bool   // leave the last message open
}

// TokenizeChat appends the tokens of a chat, in the ChatML form, to dst. The tokens of a chat that has got an answer
// and a further message extend those of the chat before, with Generate, and the answer's.
func TokenizeChat(dst []uint32, messages []Message, t Template) []uint32 {
	return tokenizer(Tokenize).chat(dst, messages, t)
}

func (tokenize tokenizer) chat(dst []uint32, messages []Message, t Template) []uint32 {
	if t.Tools != "" {
		dst = tokenize(append(dst, imStart), "tools\n"+t.Tools)
		dst = append(dst, imEnd, '\n')
	}
	for i, m := range messages {
		dst = tokenize(append(dst, imStart), m.Role+"\n")
		dst = tokenize(dst, m.Content)
		if i < len(messages)-1 || !t.ContinueFinal {
			dst = append(dst, imEnd, '\n')
		}
	}
	if t.Generate {
		dst = tokenize(append(dst, imStart), "assistant\n")
	}
	return dst
}
