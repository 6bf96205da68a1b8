import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.OutOfOrderSequenceException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Bills orders exactly once: it reads the topic orders, and writes an invoice for each order into the topic invoices. The invoices and
 * the group's offsets are committed by one transaction. It takes the addresses of brokers and a transactional id.
 */
public class ExactlyOnce {
    public static void main(String[] args) {
        Map<String, Object> reading = Map.of(
                "bootstrap.servers", args[0],
                "group.id", "billing",
                "session.timeout.ms", "6000", // after which others take the partitions of a program that was killed
                "enable.auto.commit", "false",
                "auto.offset.reset", "earliest",
                "isolation.level", "read_committed",
                "max.poll.records", "100");
        Map<String, Object> writing = Map.of(
                "bootstrap.servers", args[0],
                "transactional.id", args[1], // another one for each program that runs
                "transaction.timeout.ms", "10000");
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer());
                var producer = new KafkaProducer<>(writing, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions(); // fences a producer of the same transactional id, and aborts what it has left open
            consumer.subscribe(List.of("orders"));
            while (true) {
                ConsumerRecords<String, String> orders = consumer.poll(Duration.ofSeconds(1));
                if (orders.isEmpty()) {
                    continue;
                }
                try {
                    producer.beginTransaction();
                    for (ConsumerRecord<String, String> order : orders) {
                        producer.send(new ProducerRecord<>("invoices", order.key(), "invoice for " + order.value()));
                    }
                    producer.sendOffsetsToTransaction(ends(orders), consumer.groupMetadata());
                    producer.commitTransaction();
                } catch (ProducerFencedException | OutOfOrderSequenceException | AuthorizationException e) {
                    throw e; // whoever watches over the program starts it again
                } catch (KafkaException e) {
                    producer.abortTransaction();
                    goBack(consumer, orders); // else the orders of the aborted transaction would be left out
                }
            }
        }
    }

    /** The offsets at which the group goes on after these records. */
    static Map<TopicPartition, OffsetAndMetadata> ends(ConsumerRecords<String, String> records) {
        Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
        for (TopicPartition p : records.partitions()) {
            List<ConsumerRecord<String, String>> list = records.records(p);
            ends.put(p, new OffsetAndMetadata(list.get(list.size() - 1).offset() + 1));
        }
        return ends;
    }

    /** Has the records of an aborted transaction read again, where the partitions are still this member's. */
    static void goBack(KafkaConsumer<String, String> consumer, ConsumerRecords<String, String> records) {
        for (TopicPartition p : records.partitions()) {
            if (consumer.assignment().contains(p)) {
                consumer.seek(p, records.records(p).get(0).offset());
            }
        }
    }
}
