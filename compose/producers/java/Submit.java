// java -cp amqp-client.jar:slf4j-api.jar Submit.java QUEUE ID TASK ARGS [DELAY] [KEY]    with librabbitmq-client-java of Debian
import com.rabbitmq.client.*;
import java.util.concurrent.*;

class Submit {
    public static void main(String[] a) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("CALLBOARD_BROKER", "amqp://guest:guest@127.0.0.1:5672").replaceAll("/$", ""));
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            BlockingQueue<String> replies = new ArrayBlockingQueue<>(1);
            channel.basicConsume("amq.rabbitmq.reply-to", true, new DefaultConsumer(channel) {
                public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
                    replies.add(new String(body, java.nio.charset.StandardCharsets.UTF_8));
                }
            });
            String job = String.format("{\"id\": \"%s\", \"task\": \"%s\", \"args\": %s, \"delay\": %s, \"deduplication\": {\"id\": \"%s\"}}",
                a[1], a[2], a[3], a.length > 4 ? a[4] : "0", a.length > 5 ? a[5] : a[1]);
            channel.confirmSelect();
            channel.basicPublish(System.getenv().getOrDefault("CALLBOARD_NAMESPACE", "callboard") + ".submit", a[0], true,
                new AMQP.BasicProperties.Builder().contentType("application/json").deliveryMode(2).replyTo("amq.rabbitmq.reply-to").build(),
                job.getBytes("UTF-8"));
            channel.waitForConfirmsOrDie(30_000);
            String reply = replies.poll(30, TimeUnit.SECONDS); // comes once the job is stored
            if (reply == null) throw new TimeoutException("no reply in 30 s; submit again with the same id");
            System.out.println(reply);
        }
    }
}
