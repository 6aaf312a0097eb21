//! The list of all tables and stories.

/// Makes a test of every table and of every story. `$run` names a macro that is given the body of each test as a function of
/// a [`Run`](crate::cases::Run).
#[macro_export]
macro_rules! for_all_tables {
    ($run:ident) => {
        $crate::for_ingress_tables! { $run }
        $crate::for_ingress_tables! { @tables $run:
            framing::frames_with_more_than_two_vlan_tags_pass,
            vlan::frames_by_other_tags_pass,
            vlan::frames_that_end_within_tags_pass,
            control::successes_make_a_client_known,
            control::responses_to_known_clients_are_copied,
            control::a11_a12_a14_other_responses_are_not_copied,
            witness::a_witness_grants_a_lease,
            witness::a_witness_rearms_a_lapsed_flow,
            witness::a_witness_renews_a_lease,
            witness::other_data_are_no_witness,
            witness::another_way_ends_the_lease,
            witness::ip8_a_witness_brings_mtu_and_df,
            witness::a_witness_brings_whether_frames_can_be_redirected,
            witness::a_wildcard_source_finds_the_real_one,
            witness::a_wildcard_port_finds_the_relayed_transport_address,
            witness::what_proves_no_way_is_no_witness,
            witness::only_plain_datagrams_are_witnesses,
            witness::pr5_a_padded_witness_is_a_witness,
            witness::channels_tell_outputs_apart,
            trains::a_witness_may_be_anywhere_in_a_train,
            trains::a_wildcard_is_found_by_every_datagram_of_a_train,
            trains::other_trains_are_no_witnesses,
            trains::channels_are_told_apart_in_a_train,
            trains::rf5_a36_responses_in_a_train_are_copied,
            trains::trains_of_one_are_datagrams,
            trains::trains_are_looked_at_up_to_the_longest_that_a_server_can_send,
            vlan::a_witness_brings_the_tags_of_the_way_out,
            vlan::other_tags_end_the_lease,
            vlan::the_witnesss_priority_is_taken_while_the_lease_runs,
            vlan::witnesses_with_more_than_two_tags_are_none,
            vlan::in_generic_mode_only_confirmed_tags_are_a_way,
            vlan::packets_without_an_unseen_tag_are_confirmed,
            vlan::packets_with_an_unseen_tag_are_not_confirmed,
        }
    };
}

/// The same for those tables in which frames without VLAN tags come in, and for the stories.
#[macro_export]
macro_rules! for_ingress_tables {
    ($run:ident) => {
        $crate::for_ingress_tables! { @tables $run:
            framing::frames_that_are_not_ip_pass,
            framing::other_protocols_pass,
            framing::ip15_ipv4_options_pass,
            framing::ip16_extension_headers_pass,
            framing::fragments_pass,
            framing::the_reserved_ipv4_flag_passes,
            framing::ip18_a_wrong_ipv4_header_checksum_passes,
            framing::a_version_that_contradicts_the_ethertype_passes,
            framing::ipv4_mapped_addresses_on_the_wire_pass,
            framing::cd8_lengths_that_contradict_each_other_pass,
            framing::truncated_frames_pass,
            framing::cd7_the_trailer_of_a_short_frame_is_not_data,
            demultiplexing::fr14_bound_channels_are_relayed,
            demultiplexing::fr14_words_outside_the_range_are_no_channel_numbers,
            demultiplexing::fr15_whatever_is_unbound_at_a_listener_passes,
            demultiplexing::datagrams_of_0_to_3_bytes_at_a_listener_pass,
            demultiplexing::fr16_pr7_whatever_comes_from_a_peer_is_data,
            demultiplexing::cd4_cd11_unknown_channels_and_5_tuples_pass,
            demultiplexing::flows_do_not_mix,
            channel_data::fr17_lengths,
            channel_data::pr8_cd7_empty_datagrams_are_relayed,
            channel_data::cd1_messages_longer_than_their_datagram_pass,
            channel_data::cd2_padding_is_stripped,
            channel_data::cd2_padding_is_stripped_without_a_checksum,
            channel_data::cd3_other_excess_passes,
            channel_data::pr5_no_padding_is_added,
            channel_data::wrong_lengths_leave_the_flow_alone,
            headers::ip1_hop_limit_is_decremented,
            headers::ip2_to_ip5_dscp_and_ecn_are_copied,
            headers::ip6_flow_label_is_not_copied,
            headers::ip7_identifications_are_the_flows_own,
            headers::ip8_df_is_as_the_witness_has_it,
            checksums::ip17_a_missing_checksum_stays_missing,
            checksums::ip17_a_wrong_checksum_stays_wrong,
            checksums::ip17_a_sum_of_zero_is_sent_as_all_ones,
            checksums::ip17_extreme_data_keep_a_right_checksum,
            checksums::partial_checksums_pass,
            path::op9_frames_by_another_way_pass,
            path::the_senders_mac_address_does_not_matter,
            path::ip9_packets_that_outgrow_the_mtu_pass,
            path::pr6_jumbo_packets_pass_or_fit,
            path::jumbo_packets_are_redirected_to_what_takes_them,
            path::cd2_padding_of_jumbo_packets_is_stripped,
            path::ip10_fragmentable_packets_become_small_ipv6_packets,
            path_mtu::sd6_packets_longer_than_any_that_was_seen_pass,
            path_mtu::sd6_routing_says_how_much_fits,
            path_mtu::sd6_a_witness_shows_how_much_fits,
            path_mtu::sd6_a_new_way_has_to_show_how_much_fits,
            path_mtu::sd6_fragments_show_how_much_fits,
            path_mtu::sd6_later_fragments_and_broken_ones_show_nothing,
            path_mtu::sd6_routers_say_how_much_fits,
            path_mtu::a27_what_routers_say_of_nobodys_packets_means_nothing,
            path::packets_leave_by_the_witnesss_interface,
            path::a_lease_holds_though_the_interface_is_forgotten,
            path::what_leaves_has_the_witnesss_mac_addresses,
            control::requests_of_known_clients_are_copied,
            control::trailers_are_not_copied,
            control::requests_that_are_too_long_pass,
            control::a17_strangers_are_copied_only_while_they_are_few,
            control::a17_a11_other_stun_messages_are_not_copied,
            control::fr2_fr18_messages_without_the_cookie_are_not_copied,
            control::requests_are_copied_whatever_their_checksum,
            lease::without_a_lease_a_packet_is_noted,
            lease::without_a_lease_the_last_packet_is_noted,
            lease::packets_behind_a_heartbeat_do_not_overtake_it,
            lease::a_lease_lapses_and_says_so_once,
            lease::a_heartbeat_spills_one_packet,
            lease::a_noted_packet_brings_its_way_in,
            vlan::frames_by_the_tags_of_the_lease_are_relayed,
            vlan::tags_do_not_count_for_the_mtu,
            vlan::a_noted_packet_brings_its_tags_without_priority,
            vlan::control_messages_in_tagged_frames_are_copied,
        }
        $crate::for_ingress_tables! { @stories $run:
            a_lease_from_its_first_packet_to_its_second_life,
            a_new_way_takes_two_witnesses,
            every_packet_of_a_flow_is_counted_once,
        }
    };
    (@tables $run:ident: $($module:ident::$table:ident,)+) => {
        $(
            #[test]
            fn $table() {
                $run!(|run| $crate::cases::check(&$crate::cases::$module::$table(), run));
            }
        )+
    };
    (@stories $run:ident: $($story:ident,)+) => {
        $(
            #[test]
            fn $story() {
                $run!($crate::cases::stories::$story);
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::super::{Case, Verdict, channel_data, check, host};

    #[test]
    fn every_table_is_listed() {
        let list = include_str!("tables.rs");
        for (module, source) in [
            ("channel_data", include_str!("channel_data.rs")),
            ("checksums", include_str!("checksums.rs")),
            ("control", include_str!("control.rs")),
            ("demultiplexing", include_str!("demultiplexing.rs")),
            ("framing", include_str!("framing.rs")),
            ("headers", include_str!("headers.rs")),
            ("lease", include_str!("lease.rs")),
            ("path", include_str!("path.rs")),
            ("path_mtu", include_str!("path_mtu.rs")),
            ("trains", include_str!("trains.rs")),
            ("vlan", include_str!("vlan.rs")),
            ("witness", include_str!("witness.rs")),
        ] {
            let functions = source.lines().filter_map(|line| line.strip_prefix("pub fn "));
            let tables: Vec<_> =
                functions.filter_map(|line| line.strip_suffix("() -> Vec<Case> {")).collect();
            assert!(!tables.is_empty(), "{module}");
            for table in tables {
                assert!(list.contains(&format!(" {module}::{table},")), "{module}::{table} is not listed");
            }
        }
    }

    #[test]
    fn every_wrong_outcome_is_noticed() {
        let right = channel_data::cd2_padding_is_stripped().swap_remove(0);
        let fails = |case: Case| {
            catch_unwind(move || check(&[case], &mut |setting, input| Some(host::run(setting, input))))
                .is_err()
        };
        assert!(!fails(right.clone()));
        let changes: [fn(&mut Case); 7] = [
            |case| case.outcome.verdict = Verdict::Redirect,
            |case| case.outcome.frame[40] ^= 1,
            |case| case.outcome.frame.truncate(20),
            |case| case.outcome.counted.clear(),
            |case| case.outcome.flows[0].1.kernel_packets += 1,
            |case| case.outcome.flows.clear(),
            |case| case.outcome.clients.extend([case.outcome.flows[0].0]),
        ];
        for change in changes {
            let mut wrong = right.clone();
            change(&mut wrong);
            assert!(fails(wrong));
        }
    }

    #[test]
    #[should_panic(expected = "shows nothing")]
    fn a_table_that_cannot_be_run_is_noticed() {
        check(&channel_data::fr17_lengths(), &mut |_, _| None);
    }
}
