import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import javax.security.auth.x500.X500Principal;
import org.apache.kafka.common.security.ssl.SslPrincipalMapper;

/** Reads rules and subjects, in base64 with a tab between them, and prints the subject's name and what Kafka makes of it, in base64 each. */
public class Names {
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        StringBuilder out = new StringBuilder();
        for (String line; (line = in.readLine()) != null; ) {
            String[] parts = line.split("\t", -1);
            String rules = new String(Base64.getDecoder().decode(parts[0]), StandardCharsets.UTF_8);
            String subject;
            try {
                subject = new X500Principal(Base64.getDecoder().decode(parts[1])).getName();
            } catch (Exception e) {
                out.append("!\t!\n");
                continue;
            }
            String name;
            try {
                name = encode(SslPrincipalMapper.fromRules(rules).getName(subject));
            } catch (Exception e) {
                name = "!";
            }
            out.append(encode(subject)).append('\t').append(name).append('\n');
        }
        System.out.print(out);
    }

    static String encode(String s) {
        return Base64.getEncoder().encodeToString(s.getBytes(StandardCharsets.UTF_8));
    }
}
