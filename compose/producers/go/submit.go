// GO111MODULE=off GOPATH=/usr/share/gocode go run submit.go QUEUE ID TASK ARGS [DELAY] [KEY]    with golang-github-rabbitmq-amqp091-go-dev
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func need[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func or(given []string, position int, otherwise string) string {
	if len(given) > position && given[position] != "" {
		return given[position]
	}
	return otherwise
}

func main() {
	queue, id, task, args := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	connection := need(amqp.Dial(or([]string{os.Getenv("CALLBOARD_BROKER")}, 0, "amqp://guest:guest@127.0.0.1:5672/")))
	defer connection.Close()
	channel := need(connection.Channel())
	replies := need(channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil))
	job := need(json.Marshal(map[string]any{"id": id, "task": task, "args": json.RawMessage(args),
		"delay": need(strconv.ParseFloat(or(os.Args, 5, "0"), 64)), "deduplication": map[string]string{"id": or(os.Args, 6, id)}}))
	message := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent, ReplyTo: "amq.rabbitmq.reply-to", Body: job}
	exchange := or([]string{os.Getenv("CALLBOARD_NAMESPACE")}, 0, "callboard") + ".submit"
	if err := channel.Publish(exchange, queue, true, false, message); err != nil {
		log.Fatal(err)
	}
	select {
	case reply := <-replies: // comes after the job is stored: more than a confirm would say
		fmt.Println(string(reply.Body))
	case <-time.After(30 * time.Second):
		log.Fatal("submit: no reply in 30 s; submit again with the same id")
	}
}
