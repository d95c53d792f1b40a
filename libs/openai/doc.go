// Package openai reads and changes OpenAI API bodies without decoding them.
//
// Scan finds the byte spans of a body's top-level members in one pass. A Patch sets or deletes members and leaves every
// other byte as the client sent it. Stream watches a server-sent event stream for its usage chunk. Error is the API's
// error object.
//
// It refuses to unmarshal and marshal whole bodies: key order and number spelling decide what a chat template prints,
// and so which prefix an engine has cached. It knows nothing of engines, routing or I/O beyond an http.ResponseWriter.
package openai
